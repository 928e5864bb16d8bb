// What decides on tokens is told by these functions of mindserve._native, and its ClientIdentity.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "gateway/auth.h"
#include "gateway/gateway.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using gateway::CheckToken;
using gateway::ClientIdentity;
using gateway::Gateway;
using gateway::TokenCache;
using gateway::TokenQueue;

// pybind11 has no holder of const.
using SharedIdentity = std::shared_ptr<ClientIdentity>;

SharedIdentity MakeIdentity(std::string name, std::optional<std::set<std::string>> servables, double rate, double burst,
                            uint64_t max_in_flight, const ClientIdentity* before) {
  ClientIdentity::Spec spec{.name = std::move(name), .rate = rate, .burst = burst, .max_in_flight = max_in_flight};
  if (servables) spec.servables.emplace(servables->begin(), servables->end());
  return std::make_shared<ClientIdentity>(std::move(spec), before);
}

py::list TakeTokens(Gateway& self, size_t most) {
  const auto questions = [&] {
    const py::gil_scoped_release release;
    return self.TakeTokens(most);
  }();
  py::list taken;
  for (const TokenQueue::Question& each : questions) {
    taken.append(py::make_tuple(each.thread, each.generation, py::bytes(each.text)));
  }
  return taken;
}

void AnswerToken(Gateway& self, const std::tuple<size_t, uint64_t, std::string>& question,
                 const SharedIdentity& identity, const std::string& refusal, double seconds) {
  TokenCache::Verdict verdict{.identity = identity, .refusal = {}, .expires = kNever};
  if (identity == nullptr) verdict.refusal = Status(Code::kUnauthenticated, refusal);
  constexpr double kLongest = 1e9;  // seconds
  if (seconds < kLongest) {
    verdict.expires =
        Clock::now() + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::max(seconds, 0.0)));
  }
  const auto& [thread, generation, text] = question;
  const py::gil_scoped_release release;
  self.AnswerToken({.thread = thread, .generation = generation, .text = text}, std::move(verdict));
}

}  // namespace

void RegisterTokens(py::module_& module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  py::class_<ClientIdentity, SharedIdentity>(module, "ClientIdentity")
      .def(py::init(&MakeIdentity), py::arg("name"), py::arg("servables") = py::none(), py::arg("rate") = 0.0,
           py::arg("burst") = 1.0, py::arg("max_in_flight") = 0, py::arg("before") = py::none())
      .def_property_readonly("name", &ClientIdentity::name)
      .def("may_call", &ClientIdentity::MayCall, py::arg("servable"))
      .def(
          "denial",
          [](const ClientIdentity& self, std::string_view servable) { return self.Check(servable).message(); },
          py::arg("servable"))
      .def(
          "denial_of_all",
          [](const ClientIdentity& self, std::string_view what) { return self.DenyAll(what).message(); },
          py::arg("what"));
  module.def(
      "token_flaw", [](const py::bytes& token) { return CheckToken(std::string_view(token)).message(); },
      py::arg("token"));
  module.def("require_tokens", &Gateway::RequireTokens, py::arg("gateway"), release_gil());
  module.def("take_tokens", &TakeTokens, py::arg("gateway"), py::arg("most"));
  module.def("answer_token", &AnswerToken, py::arg("gateway"), py::arg("question"), py::arg("identity"),
             py::arg("refusal"), py::arg("seconds"));
  module.def("forget_tokens", &Gateway::ForgetTokens, py::arg("gateway"), release_gil());
  module.def("close_tokens", &Gateway::CloseTokens, py::arg("gateway"), release_gil());
}

}  // namespace mindserve::bindings
