#include "pipeline/instance.h"

#include <utility>

namespace mindserve::pipeline {

Instance& InstancePool::Get() {
  Instance& instance = free_ == nullptr ? all_.emplace_back() : *std::exchange(free_, free_->next_done);
  instance.next_done = nullptr;
  instance.live = true;
  return instance;
}

void InstancePool::Put(Instance& instance) {
  instance.tensors.clear();
  instance.values.clear();
  instance.outputs.clear();
  instance.status = Status();
  instance.request.reset();
  instance.queue = nullptr;
  instance.live = instance.done = instance.answered = false;
  instance.stage = 0;
  instance.next_done = std::exchange(free_, &instance);
}

}  // namespace mindserve::pipeline
