#include "gateway/thread_context.h"

#include "gateway/grpc_stream.h"

namespace mindserve::gateway {

ThreadContext::ThreadContext(size_t its_number, net::EventLoop& its_loop, RequestMemory& its_memory,
                             ChildCalls& all_children)
    : number(its_number), loop(its_loop), memory(its_memory), children(all_children) {
  memory.SetTime(&now);
}
ThreadContext::~ThreadContext() {
  memory.SetTime(nullptr);
}

}  // namespace mindserve::gateway
