// The limits that concern the gateway. Their names are those of docs/limits.md, the options, the error texts and the
// metrics.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mindserve::gateway {

struct Limits {
  size_t max_msg_mb_size = 100;  // MiB, 1 to 512
  size_t max_instances_per_request = 100'000;
  size_t max_enqueued_requests = 10'000;
  size_t max_enqueued_bytes = 0;  // 0: a quarter of the machine's memory, at most 4 GB
  size_t max_connections = 10'000;
  size_t max_connections_per_peer = 0;  // 0: none
  uint32_t max_concurrent_streams = 1'000;
  size_t max_metadata_bytes = 16 * 1024;
  size_t max_resets_per_second = 2'000;
  size_t max_control_frames_per_second = 10'000;
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_idle_timeout{30'000};
  size_t min_bytes_per_second = 1'024;                   // 0: none
  std::chrono::milliseconds idle_connection_timeout{0};  // 0: none
  // A client from which nothing came for so long is sent a PING; one that then says nothing at all for so long, while
  // it takes nothing either, is gone. The second leaves room for clients that look at an idle connection now and then.
  std::chrono::milliseconds keepalive_time{300'000};
  std::chrono::milliseconds keepalive_timeout{20'000};
  std::chrono::milliseconds default_deadline{0};  // 0: none
  std::chrono::milliseconds drain_timeout{30'000};
  size_t max_mirrored_requests = 100;
  size_t max_mirrored_bytes = 64 * 1024 * 1024;
  size_t max_attempts = 2;  // workers that may die while they execute a request
};

}  // namespace mindserve::gateway
