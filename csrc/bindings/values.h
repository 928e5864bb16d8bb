// Tensors to Python values and back. Everything here holds the GIL.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::bindings {

// Python objects whose last native owner let go on a thread without the GIL. Shared by the runtime and by every tensor
// that looks into an array. Thread-safe.
class Graveyard {
 public:
  void Bury(PyObject* object);  // any thread
  // Lets go of at most so many, the last buried first; with the GIL. All at once, those of a large request would hold
  // up who comes next.
  void Clear(size_t most = SIZE_MAX);
  ~Graveyard();

 private:
  std::mutex mutex_;
  std::vector<PyObject*> objects_;  // guarded by mutex_
};

// The text in UTF-8, with what has no such form, lone surrogates, written as escapes.
std::string ToUtf8(pybind11::handle text);

// The name of the value's type, for messages.
std::string TypeName(pybind11::handle value);

// What a tensor that is made of an array may do with it.
enum class Keep : uint8_t {
  kCopy,       // nothing
  kOurs,       // look into it: only the caller can reach it
  kWhileUsed,  // the same: nobody changes it until the last tensor that looks into it is gone
};

// What a Python value is of a tensor.
enum class Give : uint8_t {
  kView,  // a read-only array that looks at the tensor's bytes
  kCopy,  // a read-only array of its own
  kOwn,   // an array of its own that may be written to
};

// numpy's part in the conversions, looked up once.
class Values {
 public:
  explicit Values(std::shared_ptr<Graveyard> graveyard);

  // An array (of bytes that are not aligned a copy); `str` or `bytes` for one text element, an object array for
  // several. ValueError, as pybind11::error_already_set: text that is not UTF-8, or a shape that numpy doesn't take.
  pybind11::object ToPython(const Tensor& tensor, Give give) const;

  // What a stage function may give: anything with __array__, __dlpack__ or asnumpy(), numpy and Python scalars (shape
  // ()), str and bytes (shape (1,)). Arrays are copied, but for those that ToPython made, which nobody can change, and
  // for large ones that `keep` allows to look into. Python exceptions come as pybind11::error_already_set; a value of
  // another kind is INVALID_ARGUMENT that says which.
  Result<Tensor> FromPython(pybind11::handle value, Keep keep) const;

 private:
  Result<Tensor> FromArray(pybind11::object array, Keep keep) const;
  Result<Tensor> FromTextArray(const pybind11::object& array, bool bytes) const;

  std::shared_ptr<Graveyard> graveyard_;  // shared with the tensors that hold arrays
  pybind11::object asarray_;
  pybind11::object from_dlpack_;
  pybind11::object generic_;
  pybind11::object array_type_;
  std::vector<pybind11::dtype> dtypes_;  // by DType; objects for text
};

}  // namespace mindserve::bindings
