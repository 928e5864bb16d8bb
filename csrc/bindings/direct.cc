// mindserve._native.DirectCalls.
#include <pybind11/stl.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/values.h"
#include "gateway/direct_calls.h"
#include "gateway/gateway.h"
#include "gateway/grpc_text.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using gateway::DirectEvent;

// From here on others get on meanwhile.
constexpr size_t kCopyWithoutGil = size_t{256} << 10;

class PyDirectCalls {
 public:
  PyDirectCalls(gateway::Gateway& gateway, std::shared_ptr<Graveyard> graveyard)
      : graveyard_(std::move(graveyard)), calls_(Unwrap(gateway.NewDirectCalls())) {}
  ~PyDirectCalls() {
    const py::gil_scoped_release release;
    calls_.reset();
  }

  int fileno() const { return calls_->fd(); }
  uint64_t Start(std::string path, const py::sequence& metadata, const py::sequence& messages,
                 std::optional<double> timeout, std::string peer,
                 const std::map<std::string, std::vector<py::bytes>>& auth, int64_t client);
  py::list Take();
  void Consumed(uint64_t call, size_t count) { calls_->Consumed(call, count); }
  void Cancel(uint64_t call) { calls_->Cancel(call); }

 private:
  gateway::HeldBytes Hold(py::handle message) const;

  const std::shared_ptr<Graveyard> graveyard_;  // shared with the module, and with messages that were not passed on
  std::unique_ptr<gateway::DirectCalls> calls_;
};

std::string ToText(py::handle value) {
  if (PyBytes_Check(value.ptr()) != 0) return std::string(value.cast<py::bytes>());
  if (PyUnicode_Check(value.ptr()) != 0) return ToUtf8(value);
  throw py::type_error("metadata is " + TypeName(value) + ", expected str or bytes");
}

gateway::HeldBytes PyDirectCalls::Hold(py::handle message) const {
  if (PyBytes_Check(message.ptr()) == 0) {
    throw py::type_error("a message is " + TypeName(message) + ", expected bytes");
  }
  const std::span<const char> bytes(PyBytes_AS_STRING(message.ptr()),
                                    static_cast<size_t>(PyBytes_GET_SIZE(message.ptr())));
  message.inc_ref();
  return {.bytes = std::as_bytes(bytes),
          .holder = std::shared_ptr<PyObject>(message.ptr(),
                                              [graveyard = graveyard_](PyObject* object) { graveyard->Bury(object); })};
}

uint64_t PyDirectCalls::Start(std::string path, const py::sequence& metadata, const py::sequence& messages,
                              std::optional<double> timeout, std::string peer,
                              const std::map<std::string, std::vector<py::bytes>>& auth, int64_t client) {
  graveyard_->Clear();
  if (client < 0) throw py::value_error("client is " + std::to_string(client) + ", expected 0 or more");
  gateway::DirectRequest request{.path = std::move(path),
                                 .peer = {.address = std::move(peer), .tls = false, .subject = {}},
                                 .client = static_cast<uint64_t>(client)};
  if (timeout) {
    if (!(*timeout >= 0)) throw py::value_error("timeout is " + std::to_string(*timeout) + ", expected 0 s or more");
    constexpr double kLongest = 1e9;  // seconds
    request.deadline = *timeout > kLongest
                           ? kNever
                           : Clock::now() + std::chrono::ceil<Duration>(std::chrono::duration<double>(*timeout));
  }
  for (const py::handle pair : metadata) {
    const auto [key, value] = pair.cast<std::pair<std::string, py::object>>();
    request.metadata.emplace_back(key, ToText(value));
  }
  for (const py::handle message : messages) request.messages.push_back(Hold(message));
  for (const auto& [name, values] : auth) {
    for (const py::bytes& value : values) request.auth.emplace_back(name, std::string(value));
  }
  return calls_->Start(std::move(request));
}

py::list ToPython(const gateway::Metadata& metadata) {
  py::list pairs;
  for (const auto& [key, value] : metadata) {
    const auto length = static_cast<Py_ssize_t>(value.size());
    py::object given = gateway::IsBinaryKey(key)
                           ? py::bytes(value)
                           : py::reinterpret_steal<py::object>(PyUnicode_DecodeLatin1(value.data(), length, nullptr));
    pairs.append(py::make_tuple(key, given));
  }
  return pairs;
}

// Null: there is no memory.
py::object ToPython(const gateway::Reply& message) {
  size_t size = 0;
  for (const gateway::ReplyPart& part : message) size += part.bytes().size();
  auto bytes = py::reinterpret_steal<py::object>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!bytes) {
    PyErr_Clear();
    return bytes;
  }
  char* to = PyBytes_AS_STRING(bytes.ptr());
  const auto copy = [&] {
    for (const gateway::ReplyPart& part : message) {
      const std::span<const std::byte> from = part.bytes();
      if (from.empty()) continue;
      std::memcpy(to, from.data(), from.size());
      to += from.size();
    }
  };
  if (size < kCopyWithoutGil) {
    copy();
  } else {
    const py::gil_scoped_release release;
    copy();
  }
  return bytes;
}

py::list PyDirectCalls::Take() {
  graveyard_->Clear();
  std::vector<DirectEvent> events;
  calls_->Take(&events);
  py::list taken;
  for (auto event = events.begin(); event != events.end(); ++event) {
    switch (event->kind) {
      case DirectEvent::Kind::kInitial:
        taken.append(py::make_tuple(event->call, "initial", ToPython(event->metadata)));
        break;
      case DirectEvent::Kind::kMessage: {
        const py::object message = ToPython(event->message);
        if (message) {
          taken.append(py::make_tuple(event->call, "message", message));
          break;
        }
        const Status failed(Code::kResourceExhausted, "no memory is left for the answer");
        calls_->Cancel(event->call, failed);
        for (auto later = event; later != events.end(); ++later) {
          if (later->call == event->call && later->kind == DirectEvent::Kind::kEnd) later->status = failed;
        }
        break;
      }
      case DirectEvent::Kind::kEnd: {
        const std::string& text = event->status.message();
        auto details = py::reinterpret_steal<py::object>(
            PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
        taken.append(py::make_tuple(event->call, "end", static_cast<int>(event->status.code()), details,
                                    ToPython(event->metadata)));
        break;
      }
    }
  }
  const py::gil_scoped_release release;
  calls_->GiveBack(std::move(events));
  return taken;
}

}  // namespace

void RegisterDirect(py::module_& module) {
  // The module's, so that no I/O thread is ever the last to hold it: that one would wait for the interpreter's lock.
  const auto graveyard = std::make_shared<Graveyard>();
  py::class_<PyDirectCalls>(module, "DirectCalls")
      .def(py::init(
               [graveyard](gateway::Gateway& gateway) { return std::make_unique<PyDirectCalls>(gateway, graveyard); }),
           py::arg("gateway"))
      .def("fileno", &PyDirectCalls::fileno)
      .def("start", &PyDirectCalls::Start, py::arg("path"), py::arg("metadata"), py::arg("messages"),
           py::arg("timeout") = py::none(), py::arg("peer") = "",
           py::arg("auth") = std::map<std::string, std::vector<py::bytes>>(), py::arg("client") = 0)
      .def("take", &PyDirectCalls::Take)
      .def("consumed", &PyDirectCalls::Consumed, py::arg("call"), py::arg("count"))
      .def("cancel", &PyDirectCalls::Cancel, py::arg("call"));
}

}  // namespace mindserve::bindings
