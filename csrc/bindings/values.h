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

// numpy's part in the conversions, looked up once.
class Values {
 public:
  explicit Values(std::shared_ptr<Graveyard> graveyard);

  // A read-only array that looks at the tensor's bytes (a copy of them if they are not aligned, or if `copy`); `str` or
  // `bytes` for one text element, an object array for several. ValueError, as pybind11::error_already_set: text that is
  // not UTF-8, or a shape that numpy doesn't take.
  pybind11::object ToPython(const Tensor& tensor, bool copy) const;

  // What a stage function may give: anything with __array__, __dlpack__ or asnumpy(), numpy and Python scalars (shape
  // ()), str and bytes (shape (1,)). Arrays are copied, but for two kinds: those that ToPython made, which nobody can
  // change, and with `ours`, which says that only the caller can reach `value`. Python exceptions come as
  // pybind11::error_already_set; a value of another kind is INVALID_ARGUMENT that says which.
  Result<Tensor> FromPython(pybind11::handle value, bool ours) const;

 private:
  Result<Tensor> FromArray(pybind11::object array, bool ours) const;
  Result<Tensor> FromTextArray(const pybind11::object& array, bool bytes) const;

  std::shared_ptr<Graveyard> graveyard_;  // shared with the tensors that hold arrays
  pybind11::object asarray_;
  pybind11::object from_dlpack_;
  pybind11::object generic_;
  pybind11::object array_type_;
  std::vector<pybind11::dtype> dtypes_;  // by DType; objects for text
};

}  // namespace mindserve::bindings
