// A server whose one method streams messages that cost nothing to make: what the gateway, the link and the worker
// runtime cost, without Python. The gateway is this process, the worker its child.
//
//   stream_source <port> <messages> <bytes>     port: on 127.0.0.1, 0 for any
//
// Answers /mindserve.bench.Source/Stream with so many messages of so many bytes to each call. Prints "listening on
// ADDRESS" and runs until it is killed.
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gateway/gateway.h"
#include "worker/runtime.h"
#include "worker/service_call.h"

namespace {

using mindserve::Code;
using mindserve::Duration;
using mindserve::Status;
using mindserve::UniqueFd;
using mindserve::worker::Handlers;
using mindserve::worker::OutMessage;
using mindserve::worker::Runtime;
using mindserve::worker::ServiceCall;

constexpr std::chrono::seconds kHandshake{30};

// How many messages a call has still to get.
struct Progress {
  size_t left;
};

void RunHandlers(Handlers& handlers, size_t messages, const std::string& message) {
  for (;;) {
    const auto call = handlers.TryTake();
    if (call == nullptr) {
      if (!handlers.Await()) return;
      handlers.Stay(Duration::zero());
      continue;
    }
    if (call->executor_data == nullptr) call->executor_data = new Progress{messages};
    auto* progress = static_cast<Progress*>(call->executor_data);
    while (progress->left > 0) {
      --progress->left;
      if (call->Write(OutMessage(message)) != ServiceCall::Writing::kGoOn) break;
    }
    if (progress->left == 0 || call->over()) {
      delete progress;
      call->executor_data = nullptr;
      call->Finish(Code::kOk, {}, {});
    } else {
      call->Park();
    }
  }
}

int Serve(UniqueFd link, size_t messages, size_t bytes) {
  const mindserve::SystemTime time;
  Runtime runtime(time, {});
  runtime.handlers().Add({.path = "/mindserve.bench.Source/Stream", .server_streaming = true});
  std::thread handlers([&] { RunHandlers(runtime.handlers(), messages, std::string(bytes, 'm')); });
  const Status status = runtime.Serve(std::move(link), kHandshake);
  handlers.join();
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

void Check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s <port> <messages> <bytes>\n", argv[0]);
    return 2;
  }
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return 1;
  UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  const pid_t child = ::fork();  // before there are threads
  if (child < 0) return 1;
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ours.reset();
    return Serve(std::move(theirs), std::strtoul(argv[2], nullptr, 10), std::strtoul(argv[3], nullptr, 10));
  }
  theirs.reset();
  auto gateway = mindserve::gateway::Gateway::Create({});
  Check(gateway.status());
  (*gateway)->DeclareServable("source");
  Check((*gateway)->SetServices({{.name = "mindserve.bench.Source", .methods = {{"Stream", false, true}}}}, {}));
  mindserve::gateway::WorkerSpec worker;
  worker.servable = "source";
  worker.methods = {{.name = "/mindserve.bench.Source/Stream", .idempotent = false}};
  Check((*gateway)->AttachWorker(std::move(ours), std::move(worker), kHandshake));
  auto address = mindserve::net::ParseAddress(std::string("127.0.0.1:") + argv[1], "the address");
  Check(address.status());
  mindserve::gateway::ListenerSpec listener;
  listener.address = *address;
  std::vector<mindserve::gateway::ListenerSpec> listeners;
  listeners.push_back(std::move(listener));
  const auto bound = (*gateway)->Listen(std::move(listeners), {});
  Check(bound.status());
  std::printf("listening on %s\n", bound->front().ToString().c_str());
  std::fflush(stdout);
  for (;;) ::pause();
}
