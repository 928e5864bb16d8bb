// Handlers of users' services: the bodies of the handler threads, and the event loop's door.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/values.h"
#include "worker/handlers.h"

namespace mindserve::bindings {

class ServiceHandlers {
 public:
  // `handlers` outlives it; `graveyard` is shared with the calls' messages.
  ServiceHandlers(worker::Handlers& handlers, std::shared_ptr<Graveyard> graveyard)
      : handlers_(handlers), graveyard_(std::move(graveyard)) {}

  // `unary`: None, or (parse, function, response_class) of a plain function that is called here, without dispatch.
  int Add(worker::HandlerSpec spec, const pybind11::object& unary);
  // A handler thread, until the handlers are stopped; an extra one, until it is not needed.
  void Run(const pybind11::function& dispatch, const pybind11::function& on_error, const pybind11::object& current,
           bool extra);
  // (threads to start, stuck), or None once the handlers are stopped.
  pybind11::object AwaitNeeds(bool stuck);
  // (calls in line, [(thread, path, seconds)])
  pybind11::tuple Held() const;
  // [(ServiceCall, events)]
  pybind11::list TakeLoopEvents();

 private:
  // Python's objects by which a unary function is called; parse is null for a handler that is dispatched.
  struct Unary {
    pybind11::object parse;
    pybind11::object function;
    pybind11::object response_class;
  };
  struct Callbacks {
    PyObject* dispatch;
    PyObject* on_error;
    PyObject* current;
  };
  void Handle(const std::shared_ptr<worker::ServiceCall>& call, const Callbacks& callbacks);
  void Answer(worker::ServiceCall& call, PyObject* object, const Unary& unary, const Callbacks& callbacks);

  worker::Handlers& handlers_;
  const std::shared_ptr<Graveyard> graveyard_;
  std::vector<Unary> unary_;  // by handler
  std::vector<worker::Handlers::LoopEvents> loop_events_;
};

}  // namespace mindserve::bindings
