#include "bindings/values.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <optional>

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// Below this, copying an array is cheaper than keeping it.
constexpr size_t kKeepFrom = 16 * 1024;

constexpr const char* kOwnerName = "mindserve.tensor";

// The DType of a native-endian numpy type; nothing for one that the wire lacks.
std::optional<DType> FromNumpy(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const auto size = static_cast<size_t>(dtype.itemsize());
  for (const DTypeInfo& info : kDTypes) {
    if (info.numpy.empty() || info.size != size) continue;
    const char first = info.numpy.front();  // bool, int, uint, float
    if (kind == first) return info.dtype;
  }
  return std::nullopt;
}

py::str ToStr(std::string_view text) {
  PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

std::string_view Utf8(py::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

template <typename T>
Tensor Scalar(DType dtype, T value) {
  std::span<std::byte> bytes;
  auto tensor = Tensor::Allocate(dtype, Shape{}, &bytes);
  if (!tensor.ok()) throw std::bad_alloc();
  std::memcpy(bytes.data(), &value, sizeof(value));
  return *std::move(tensor);
}

// A tensor without elements may have dimensions whose product numpy refuses; pybind11 would compute with it first.
void CheckFits(const std::vector<py::ssize_t>& shape, const py::dtype& dtype) {
  py::ssize_t bytes = dtype.itemsize();
  for (const py::ssize_t dim : shape) {
    if (dim == 0 || !__builtin_mul_overflow(bytes, dim, &bytes)) continue;
    PyErr_SetString(PyExc_ValueError, "the shape is too big for an array of numpy's");
    throw py::error_already_set();
  }
}

// If the array looks at a tensor of ours, that tensor's owner: then nobody can change it.
const TensorOwner* OwnerOf(const py::array& array) {
  const py::object base = array.base();
  if (!base || !py::isinstance<py::capsule>(base)) return nullptr;
  const auto capsule = base.cast<py::capsule>();
  if (capsule.name() == nullptr || std::strcmp(capsule.name(), kOwnerName) != 0) return nullptr;
  return capsule.get_pointer<TensorOwner>();
}

}  // namespace

std::string ToUtf8(py::handle text) {
  const auto bytes =
      py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
  if (!bytes) throw py::error_already_set();
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

std::string TypeName(py::handle value) {
  return Py_TYPE(value.ptr())->tp_name;
}

void Graveyard::Bury(PyObject* object) {
  std::lock_guard lock(mutex_);
  objects_.push_back(object);
}

void Graveyard::Clear(size_t most) {
  std::vector<PyObject*> objects;
  {
    std::lock_guard lock(mutex_);
    if (objects_.size() <= most) {
      objects.swap(objects_);
    } else {
      const auto begin = objects_.end() - static_cast<std::ptrdiff_t>(most);
      objects.assign(begin, objects_.end());
      objects_.erase(begin, objects_.end());
    }
  }
  for (PyObject* object : objects) Py_DECREF(object);
}

Graveyard::~Graveyard() {
  // The last owner may be any thread, at any time; at the process's end the interpreter is gone and the objects with
  // it.
  if (objects_.empty() || Py_IsInitialized() == 0) return;
  py::gil_scoped_acquire gil;
  Clear();
}

Values::Values(std::shared_ptr<Graveyard> graveyard) : graveyard_(std::move(graveyard)) {
  const auto numpy = py::module_::import("numpy");
  asarray_ = numpy.attr("asarray");
  from_dlpack_ = numpy.attr("from_dlpack");
  generic_ = numpy.attr("generic");
  array_type_ = numpy.attr("ndarray");
  for (const DTypeInfo& info : kDTypes) dtypes_.emplace_back(info.numpy.empty() ? "O" : std::string(info.numpy));
}

py::object Values::ToPython(const Tensor& tensor, Give give) const {
  if (IsText(tensor.dtype())) {
    const auto make = [&](std::string_view text) -> py::object {
      if (tensor.dtype() == DType::kString) return ToStr(text);
      return py::bytes(text.data(), text.size());
    };
    const auto elements = tensor.elements();
    if (elements.size() == 1 && tensor.shape().rank() <= 1) return make(elements[0]);
    py::list list;
    for (std::string_view text : elements) list.append(make(text));
    const auto dims = tensor.shape().dims();
    py::tuple shape(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) shape[i] = dims[i];
    const py::object array =
        asarray_(list, py::arg("dtype") = dtypes_[static_cast<size_t>(tensor.dtype())]).attr("reshape")(shape);
    if (give != Give::kOwn) array.attr("setflags")(py::arg("write") = false);
    return array;
  }
  const py::dtype& dtype = dtypes_[static_cast<size_t>(tensor.dtype())];
  const auto dims = tensor.shape().dims();
  std::vector<py::ssize_t> shape(dims.begin(), dims.end());
  CheckFits(shape, dtype);
  if (give != Give::kView) {
    py::array array(dtype, std::move(shape));
    if (!tensor.data().empty()) std::memcpy(array.mutable_data(), tensor.data().data(), tensor.data().size());
    if (give == Give::kOwn) return array;
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
  }
  const Tensor aligned = tensor.Aligned();
  auto owner = std::make_unique<TensorOwner>(aligned.owner());
  const py::capsule base(owner.get(), kOwnerName, [](PyObject* capsule) {
    delete static_cast<TensorOwner*>(PyCapsule_GetPointer(capsule, kOwnerName));
  });
  owner.release();
  py::array array(dtype, std::move(shape), {}, aligned.data().data(), base);
  py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}

Result<Tensor> Values::FromTextArray(const py::object& array, bool bytes) const {
  // tolist() of the flat array: Python str or bytes objects, whose characters are copied together with their owner.
  const py::list items = array.attr("ravel")().attr("tolist")();
  struct Texts {
    std::vector<std::string> texts;
  };
  auto owner = std::make_shared<Texts>();
  owner->texts.reserve(items.size());
  for (const py::handle item : items) {
    if (bytes ? !PyBytes_Check(item.ptr()) : !PyUnicode_Check(item.ptr())) {
      return Status(Code::kInvalidArgument,
                    "an array of objects may hold str or bytes of one kind, given '" + TypeName(item) + "'");
    }
    if (bytes) {
      owner->texts.emplace_back(PyBytes_AS_STRING(item.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(item.ptr())));
    } else {
      owner->texts.emplace_back(Utf8(item));
    }
  }
  std::vector<std::string_view> elements(owner->texts.begin(), owner->texts.end());
  Shape shape;
  for (const py::handle dim : array.attr("shape")) shape.push_back(dim.cast<int64_t>());
  return Tensor::TextView(bytes ? DType::kBytes : DType::kString, std::move(shape), std::move(elements), owner);
}

Result<Tensor> Values::FromArray(py::object value, Keep keep) const {
  auto array = py::reinterpret_borrow<py::array>(value);
  py::dtype dtype = array.dtype();
  const char kind = dtype.kind();
  if (kind == 'U' || kind == 'T' || kind == 'S') return FromTextArray(array, kind == 'S');
  if (kind == 'O') {
    const bool bytes = array.size() > 0 && PyBytes_Check(py::object(array.attr("flat")[py::int_(0)]).ptr());
    return FromTextArray(array, bytes);
  }
  const auto type = FromNumpy(dtype);
  if (!type) {
    return Status(Code::kInvalidArgument,
                  "an array of type '" + ToUtf8(py::str(dtype.attr("name"))) + "' is not of a type that can be sent");
  }
  Shape shape;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) shape.push_back(array.shape(i));
  const auto bytes = static_cast<size_t>(array.nbytes());
  const bool plain = (array.flags() & py::array::c_style) != 0 && dtype.byteorder() != '>' &&
                     (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (plain) {
    const auto* data = static_cast<const std::byte*>(array.data());
    if (const TensorOwner* owner = OwnerOf(array)) return Tensor::View(*type, std::move(shape), {data, bytes}, *owner);
    if (bytes >= kKeepFrom && (keep == Keep::kWhileUsed || (keep == Keep::kOurs && array.owndata()))) {
      PyObject* kept = array.release().ptr();
      TensorOwner owner(kept, [graveyard = graveyard_](PyObject* object) { graveyard->Bury(object); });
      return Tensor::View(*type, std::move(shape), {data, bytes}, std::move(owner));
    }
  }
  std::span<std::byte> into;
  auto tensor = Tensor::Allocate(*type, std::move(shape), &into);
  if (!tensor.ok()) return tensor.status();
  if (plain) {
    std::memcpy(into.data(), array.data(), bytes);
  } else {
    const py::object contiguous = array.attr("astype")(dtype.attr("newbyteorder")("="), py::arg("order") = "C");
    std::memcpy(into.data(), py::reinterpret_borrow<py::array>(contiguous).data(), bytes);
  }
  return tensor;
}

Result<Tensor> Values::FromPython(py::handle value, Keep keep) const {
  PyObject* object = value.ptr();
  if (py::isinstance<py::array>(value)) {
    // Of a derived class, methods and attributes may be anything: numpy's own view of it is what counts.
    const bool derived = reinterpret_cast<PyObject*>(Py_TYPE(object)) != array_type_.ptr();
    return FromArray(derived ? asarray_(value) : py::reinterpret_borrow<py::object>(value),
                     derived && keep == Keep::kOurs ? Keep::kCopy : keep);
  }
  if (PyUnicode_CheckExact(object)) return Tensor::Text(DType::kString, std::string(Utf8(value)));
  if (PyBytes_CheckExact(object)) {
    return Tensor::Text(DType::kBytes, {PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object))});
  }
  if (PyBool_Check(object)) return Scalar<uint8_t>(DType::kBool, object == Py_True ? 1 : 0);
  // numpy's numbers come first: its float64 is a float as well, its str_ a str.
  if (py::isinstance(value, generic_)) return FromArray(asarray_(value), Keep::kCopy);
  if (PyLong_Check(object)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) {
      // Not the number itself, which Python may refuse to write.
      return Status(Code::kInvalidArgument, "an int of " + ToUtf8(py::str(value.attr("bit_length")())) +
                                                " bits was given, which does not fit int64");
    }
    return Scalar<int64_t>(DType::kInt64, number);
  }
  if (PyFloat_Check(object)) return Scalar<double>(DType::kFloat64, PyFloat_AS_DOUBLE(object));
  if (PyUnicode_Check(object)) return Tensor::Text(DType::kString, std::string(Utf8(value)));
  if (PyBytes_Check(object) || PyByteArray_Check(object) || PyMemoryView_Check(object)) {
    const auto bytes = py::reinterpret_steal<py::object>(PyBytes_FromObject(object));
    if (!bytes) throw py::error_already_set();
    return Tensor::Text(DType::kBytes,
                        {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))});
  }
  if (py::hasattr(value, "__array__")) return FromArray(asarray_(value), Keep::kCopy);
  if (py::hasattr(value, "asnumpy")) return FromArray(asarray_(value.attr("asnumpy")()), Keep::kCopy);
  if (py::hasattr(value, "__dlpack__")) return FromArray(from_dlpack_(value), Keep::kCopy);
  return Status(Code::kInvalidArgument,
                "a value of type '" + TypeName(value) +
                    "' was given; expected a numpy array, a number, a bool, str, bytes, or an object with __array__, "
                    "__dlpack__ or asnumpy()");
}

}  // namespace mindserve::bindings
