// What calls that stay open for as long as their clients like keep in memory.
#include <gtest/gtest.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MINDSERVE_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MINDSERVE_SANITIZED
#endif
#endif
#ifdef MINDSERVE_SANITIZED
#include <sanitizer/allocator_interface.h>
#else
#include <malloc.h>
#endif

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/health_service.h"
#include "gateway/reflection_service.h"
#include "gateway/test_client.h"
#include "gateway/user_fixture.h"

namespace mindserve::gateway {
namespace {

// Of this process, of which the gateway is a part.
size_t AllocatedBytes() {
#ifdef MINDSERVE_SANITIZED
  return __sanitizer_get_current_allocated_bytes();
#else
  return mallinfo2().uordblks;
#endif
}

class CallMemoryTest : public UserTest {
 protected:
  static constexpr int kCalls = 200;
  static constexpr size_t kMetadata = 15'000;

  // What each of many such calls takes, once all that was sent has been read.
  size_t EachTakes(const char* path) {
    TestClient client(Listen());
    Sync(client);
    const size_t before = AllocatedBytes();
    std::vector<int32_t> calls;
    for (int i = 0; i < kCalls; ++i) {
      const TestClient::Fields more = {{"x-note", std::string(kMetadata, 'n')}};
      calls.push_back(client.Start(path, path == std::string_view(kHealthWatchPath) ? Framed("") : "", false, more));
      client.Flush();
      Sync(client);
    }
    const size_t after = AllocatedBytes();
    for (const int32_t call : calls) EXPECT_FALSE(client.response(call).closed);
    return (std::max(after, before) - before) / kCalls;
  }
};

TEST_F(CallMemoryTest, AWatchKeepsNoMetadata) {
  EXPECT_LT(EachTakes(kHealthWatchPath), kMetadata / 2);
}

TEST_F(CallMemoryTest, ReflectionKeepsNone) {
  EXPECT_LT(EachTakes(kReflectionV1Path), kMetadata / 2);
}

// What its worker was sent has it, and counts as enqueued; the worker of this test, in the same process, keeps it once.
TEST_F(CallMemoryTest, AStreamToAWorkerKeepsNone) {
  const auto worker = Start(1);
  EXPECT_LT(EachTakes(kUp), kMetadata * 3 / 2);
}

}  // namespace
}  // namespace mindserve::gateway
