#include "gateway/gateway.h"

#include <fcntl.h>
#include <pybind11/stl.h>

#include <cmath>
#include <map>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using gateway::Gateway;
using gateway::Limits;

// Sets the limit of this name; the names are those of gateway/limits.h.
void SetLimit(Limits& limits, const std::string& name, uint64_t value) {
  const auto time = std::chrono::milliseconds(value);
  static const std::map<std::string, void (*)(Limits&, uint64_t, std::chrono::milliseconds)> kSetters = {
#define MS_COUNT(field)                                                                                           \
  {                                                                                                               \
    #field, [](Limits& l, uint64_t v, std::chrono::milliseconds) { l.field = static_cast<decltype(l.field)>(v); } \
  }
#define MS_TIME(field)                                                            \
  {                                                                               \
    #field, [](Limits& l, uint64_t, std::chrono::milliseconds t) { l.field = t; } \
  }
      MS_COUNT(max_msg_mb_size),        MS_COUNT(max_instances_per_request),
      MS_COUNT(max_enqueued_requests),  MS_COUNT(max_enqueued_bytes),
      MS_COUNT(max_connections),        MS_COUNT(max_connections_per_peer),
      MS_COUNT(max_concurrent_streams), MS_COUNT(max_metadata_bytes),
      MS_COUNT(max_resets_per_second),  MS_COUNT(max_control_frames_per_second),
      MS_COUNT(min_bytes_per_second),   MS_COUNT(max_attempts),
      MS_COUNT(max_mirrored_requests),  MS_COUNT(max_mirrored_bytes),
      MS_TIME(header_timeout),          MS_TIME(body_idle_timeout),
      MS_TIME(idle_connection_timeout), MS_TIME(default_deadline),
      MS_TIME(keepalive_time),          MS_TIME(keepalive_timeout),
      MS_TIME(drain_timeout),
#undef MS_COUNT
#undef MS_TIME
  };
  const auto setter = kSetters.find(name);
  if (setter == kSetters.end()) throw py::value_error("there is no limit named '" + name + "'");
  setter->second(limits, value, time);
}

std::shared_ptr<const net::TlsContext> ToTls(const py::dict& given) {
  net::TlsOptions options;
  options.certificate = given["certificate"].cast<std::string>();
  options.private_key = given["private_key"].cast<std::string>();
  options.client_ca = given["client_ca"].cast<std::string>();
  options.client_crl = given["client_crl"].cast<std::string>();
  options.verify_client = given["verify_client"].cast<bool>();
  py::gil_scoped_release release;
  return Unwrap(net::TlsContext::Create(options));
}

// {"fds": [...], "file": None | (device, inode)}; the descriptors stay the giver's.
net::SharedSockets ToSharedSockets(const py::dict& given) {
  net::SharedSockets shared;
  if (!given["file"].is_none()) {
    const auto [device, inode] = given["file"].cast<std::pair<dev_t, ino_t>>();
    shared.file = net::FileId{device, inode};
  }
  for (const int fd : given["fds"].cast<std::vector<int>>()) {
    shared.sockets.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }
  return shared;
}

py::list ShareListeners(Gateway& self) {
  auto shared = [&] {
    py::gil_scoped_release release;
    return self.ShareListeners();
  }();
  py::list result;
  for (net::SharedSockets& each : Unwrap(std::move(shared))) {
    std::vector<int> fds;
    for (UniqueFd& socket : each.sockets) fds.push_back(socket.release());
    py::dict listener;
    listener["fds"] = fds;
    listener["file"] = each.file ? py::object(py::make_tuple(each.file->device, each.file->inode)) : py::none();
    result.append(listener);
  }
  return result;
}

gateway::ListenerSpec ToListener(const py::dict& given) {
  gateway::ListenerSpec spec;
  spec.address = Unwrap(net::ParseAddress(given["address"].cast<std::string>(), "Serving gRPC server"));
  if (given.contains("unix_mode")) spec.options.unix_mode = given["unix_mode"].cast<int>();
  if (given.contains("tls") && !given["tls"].is_none()) spec.tls = ToTls(given["tls"].cast<py::dict>());
  if (given.contains("internal")) spec.internal = given["internal"].cast<bool>();
  if (given.contains("inherited") && !given["inherited"].is_none()) {
    spec.inherited = ToSharedSockets(given["inherited"].cast<py::dict>());
  }
  return spec;
}

std::chrono::milliseconds ToMilliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(std::ceil(seconds * 1000)));
}

std::vector<std::string> Listen(Gateway& self, const std::vector<py::dict>& given,
                                const std::map<std::string, uint64_t>& given_limits, bool accept) {
  std::vector<gateway::ListenerSpec> listeners;
  for (const py::dict& listener : given) listeners.push_back(ToListener(listener));
  Limits limits;
  for (const auto& [name, value] : given_limits) SetLimit(limits, name, value);
  auto bound = [&] {
    py::gil_scoped_release release;
    return self.Listen(std::move(listeners), limits, accept);
  }();
  std::vector<std::string> addresses;
  for (const net::Address& address : Unwrap(std::move(bound))) addresses.push_back(address.ToString());
  return addresses;
}

void SetTls(Gateway& self, size_t listener, const py::dict& given) {
  auto tls = ToTls(given);
  Raise([&] {
    py::gil_scoped_release release;
    return self.SetTls(listener, std::move(tls));
  }());
}

// (full name, [(method, client_streaming, server_streaming)])
using GivenService = std::pair<std::string, std::vector<std::tuple<std::string, bool, bool>>>;

void SetServices(Gateway& self, std::vector<GivenService> given, const py::bytes& descriptors) {
  std::vector<gateway::ServiceSpec> services;
  for (auto& [name, methods] : given) {
    gateway::ServiceSpec& service = services.emplace_back();
    service.name = std::move(name);
    for (auto& [method, client_streaming, server_streaming] : methods) {
      service.methods.push_back({std::move(method), client_streaming, server_streaming});
    }
  }
  const auto bytes = descriptors.cast<std::string_view>();
  Raise([&] {
    py::gil_scoped_release release;
    return self.SetServices(std::move(services), bytes);
  }());
}

void SetTraffic(Gateway& self, const std::vector<py::dict>& given) {
  std::vector<gateway::SplitSpec> splits;
  for (const py::dict& each : given) {
    gateway::SplitSpec& split = splits.emplace_back();
    split.name = each["name"].cast<std::string>();
    if (!each["sticky"].is_none()) split.sticky = each["sticky"].cast<std::string>();
    for (const auto& variation : each["variations"].cast<std::vector<py::dict>>()) {
      split.variations.push_back({.name = variation["name"].cast<std::string>(),
                                  .servable = variation["servable"].cast<std::string>(),
                                  .version = variation["version"].cast<uint64_t>(),
                                  .weight = variation["weight"].cast<double>()});
    }
    for (const auto& mirror : each["mirrors"].cast<std::vector<py::dict>>()) {
      split.mirrors.push_back({.servable = mirror["servable"].cast<std::string>(),
                               .version = mirror["version"].cast<uint64_t>(),
                               .fraction = mirror["fraction"].cast<double>()});
    }
  }
  Raise([&] {
    py::gil_scoped_release release;
    return self.SetTraffic(splits);
  }());
}

void AttachWorker(Gateway& self, int fd, uint64_t id, std::string servable, uint64_t version,
                  const std::vector<std::pair<std::string, bool>>& methods, double heartbeat_timeout, double timeout) {
  UniqueFd socket(fd);
  gateway::WorkerSpec spec{.id = id,
                           .servable = std::move(servable),
                           .version = version,
                           .methods = {},
                           .heartbeat_timeout = ToMilliseconds(heartbeat_timeout)};
  for (const auto& [name, idempotent] : methods) spec.methods.push_back({name, idempotent});
  const Status status = [&] {
    py::gil_scoped_release release;
    return self.AttachWorker(std::move(socket), std::move(spec), ToMilliseconds(timeout));
  }();
  Raise(status);
}

// --- Statistics: as plain values, which mindserve/server/statistics.py gives their public form. ---

// (count, sum, [(largest value, how many), ...])
py::tuple ToTuple(const HistogramSnapshot& histogram) {
  py::list buckets;
  for (const auto& [upper, count] : histogram.buckets) buckets.append(py::make_tuple(upper, count));
  return py::make_tuple(histogram.count, histogram.sum, buckets);
}

const char* KindName(link::StageKind kind) {
  switch (kind) {
    case link::StageKind::kModel:
      return "model";
    case link::StageKind::kHandler:
      return "handler";
    case link::StageKind::kFunction:
      break;
  }
  return "function";
}

py::dict ToDict(const link::StageSnapshot& stage) {
  py::dict result;
  result["kind"] = KindName(stage.stage.kind);
  // Cut to what an entry holds, maybe within a character.
  result["name"] = py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(stage.stage.name.data(), static_cast<Py_ssize_t>(stage.stage.name.size()), "replace"));
  result["batch_sizes"] = ToTuple(stage.batch_sizes);
  result["queue_ns"] = ToTuple(stage.queue_ns);
  result["run_ns"] = ToTuple(stage.run_ns);
  result["failed"] = stage.failed;
  result["expired"] = stage.expired;
  return result;
}

py::dict ToDict(const Gateway::WorkerStats& worker) {
  py::dict result;
  result["id"] = worker.id;
  result["load"] = worker.load;
  result["requests"] = worker.requests;
  py::list stages;
  for (const link::StageSnapshot& stage : worker.stages) stages.append(ToDict(stage));
  result["stages"] = stages;
  return result;
}

py::dict ToDict(const Gateway::MethodStats& method) {
  py::dict result;
  result["path"] = method.key.path;
  result["servable"] = method.key.servable;
  result["version"] = method.key.version;
  result["method"] = method.key.method;
  result["split"] = method.key.split;
  result["variation"] = method.key.variation;
  result["mirrored"] = method.key.mirrored;
  py::dict ended;
  for (size_t code = 0; code < method.ended.size(); ++code) {
    if (method.ended[code] > 0) ended[py::str(std::string(CodeName(static_cast<Code>(code))))] = method.ended[code];
  }
  result["ended"] = ended;
  result["with_errors"] = method.with_errors;
  py::dict errors;
  for (size_t code = 1; code < method.errors.size(); ++code) {
    if (method.errors[code] > 0) errors[py::str(std::string(wire::kErrorCodeNames[code]))] = method.errors[code];
  }
  result["errors"] = errors;
  result["instances"] = method.instances;
  result["bytes_in"] = method.bytes_in;
  result["bytes_out"] = method.bytes_out;
  result["latency_ns"] = ToTuple(method.latency_ns);
  return result;
}

py::dict ToDict(const Gateway::Stats& stats) {
  py::dict result;
  result["requests"] = stats.requests;
  result["replies"] = stats.replies;
  result["errors"] = stats.errors;
  result["in_flight"] = stats.in_flight;
  result["enqueued_bytes"] = stats.enqueued_bytes;
  result["connections"] = stats.connections;
  result["accepted"] = stats.accepted;
  py::dict refused;
  for (size_t i = 0; i < stats.refused.size(); ++i) {
    refused[py::str(std::string(gateway::kRefusalNames[i]))] = stats.refused[i];
  }
  result["refused"] = refused;
  py::list methods;
  for (const Gateway::MethodStats& method : stats.methods) methods.append(ToDict(method));
  result["methods"] = methods;
  py::list workers;
  for (const Gateway::WorkerStats& worker : stats.workers) workers.append(ToDict(worker));
  result["workers"] = workers;
  return result;
}

}  // namespace

void RegisterGateway(py::module_& module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  // Destroyed without the GIL: its threads may be logging, for which they need it.
  struct WithoutGil {
    void operator()(Gateway* gateway) const {
      py::gil_scoped_release release;
      delete gateway;
    }
  };
  py::class_<Gateway, std::unique_ptr<Gateway, WithoutGil>>(module, "Gateway")
      .def(py::init([](int io_threads, const py::bytes& descriptors) {
             auto made = Unwrap(Gateway::Create({.io_threads = io_threads, .descriptors = descriptors}));
             return std::unique_ptr<Gateway, WithoutGil>(made.release());
           }),
           py::arg("io_threads") = 0, py::arg("descriptors") = py::bytes())
      .def(
          "declare_servable",
          [](Gateway& self, const std::string& name, size_t max_enqueued_requests, size_t max_enqueued_bytes) {
            self.DeclareServable(
                name, {.max_enqueued_requests = max_enqueued_requests, .max_enqueued_bytes = max_enqueued_bytes});
          },
          py::arg("name"), py::arg("max_enqueued_requests") = 0, py::arg("max_enqueued_bytes") = 0, release_gil())
      .def("remove_servable", &Gateway::RemoveServable, py::arg("name"), release_gil())
      .def("set_services", &SetServices, py::arg("services"), py::arg("descriptors"))
      .def("set_traffic", &SetTraffic, py::arg("splits"))
      .def("listen", &Listen, py::arg("listeners"), py::arg("limits"), py::arg("accept") = true)
      .def("set_tls", &SetTls, py::arg("listener"), py::arg("tls"))
      .def("accept", &Gateway::Accept, release_gil())
      .def("share_listeners", &ShareListeners)
      .def("disown_listeners", &Gateway::DisownListeners, py::arg("which"), release_gil())
      .def("set_max_enqueued_requests", &Gateway::SetMaxEnqueuedRequests, py::arg("count"), release_gil())
      .def("attach_worker", &AttachWorker, py::arg("fd"), py::arg("worker_id"), py::arg("servable"), py::arg("version"),
           py::arg("methods"), py::arg("heartbeat_timeout"), py::arg("timeout"))
      .def("drain_worker", &Gateway::DrainWorker, py::arg("worker_id"), release_gil())
      .def("remove_version", &Gateway::RemoveVersion, py::arg("servable"), py::arg("version"), release_gil())
      .def("detach_worker", &Gateway::DetachWorker, py::arg("worker_id"), py::arg("dead") = false, release_gil())
      .def("lost_workers_fd", &Gateway::lost_workers_fd)
      .def("take_lost_workers",
           [](Gateway& self) {
             std::vector<std::pair<uint64_t, std::string>> lost;
             for (auto& worker : self.TakeLostWorkers()) lost.emplace_back(worker.id, std::move(worker.why));
             return lost;
           })
      .def(
          "stop_listening", [](Gateway& self, double grace) { self.StopListening(ToMilliseconds(grace)); },
          py::arg("grace"), release_gil())
      .def("replies", &Gateway::replies)
      .def("stats", [](const Gateway& self) {
        return ToDict([&] {
          py::gil_scoped_release release;
          return self.GetStats();
        }());
      });
}

}  // namespace mindserve::bindings
