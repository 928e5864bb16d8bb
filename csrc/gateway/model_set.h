// Which multiplexed models a worker holds, and which it has calls for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "gateway/service_table.h"

namespace mindserve::gateway {

// Belongs to an I/O thread's end of a worker.
class ModelSet {
 public:
  // What a worker says beyond these is not noted: its calls for such models go where any call goes.
  static constexpr size_t kMostModels = 10'000;
  static constexpr size_t kLongestId = 1024;

  // As the worker says.
  void Set(std::string_view model, bool loaded) {
    const auto found = models_.find(model);
    if (found != models_.end()) {
      found->second.loaded = loaded;
      DropIfIdle(found);
    } else if (loaded && model.size() <= kLongestId && models_.size() < kMostModels) {
      models_.emplace(model, Model{.loaded = true});
    }
  }
  bool Holds(std::string_view model) const {
    const auto found = models_.find(model);
    return found != models_.end() && found->second.loaded;
  }

  // A call for the model is under way, and is over.
  void Begin(std::string_view model) {
    if (model.size() > kLongestId) return;
    auto found = models_.find(model);
    if (found == models_.end()) found = models_.emplace(model, Model{}).first;
    ++found->second.calls;
  }
  void End(std::string_view model) {
    const auto found = models_.find(model);
    if (found == models_.end()) return;
    --found->second.calls;
    DropIfIdle(found);
  }
  bool HasCalls(std::string_view model) const {
    const auto found = models_.find(model);
    return found != models_.end() && found->second.calls > 0;
  }

 private:
  struct Model {
    bool loaded = false;
    size_t calls = 0;  // under way
  };
  void DropIfIdle(StringMap<Model>::iterator model) {
    if (!model->second.loaded && model->second.calls == 0) models_.erase(model);
  }
  StringMap<Model> models_;
};

}  // namespace mindserve::gateway
