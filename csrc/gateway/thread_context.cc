#include "gateway/thread_context.h"

#include "gateway/grpc_stream.h"

namespace mindserve::gateway {

ThreadContext::ThreadContext(net::EventLoop& its_loop, RequestMemory& its_memory)
    : loop(its_loop), memory(its_memory) {}
ThreadContext::~ThreadContext() = default;

}  // namespace mindserve::gateway
