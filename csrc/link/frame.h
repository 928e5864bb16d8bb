// What passes over a link: the frames of the rings and the constants of the shared regions. docs/wire_format.md states
// the same byte by byte; a change here is a change of kLinkVersion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace mindserve::link {

inline constexpr uint32_t kLinkMagic = 0x4B4C534D;  // "MSLK", little-endian
inline constexpr uint32_t kLinkVersion = 7;

inline constexpr size_t kCacheLine = 64;
inline constexpr size_t kPage = 4096;

// Frames a ring holds; a power of two. What does not fit waits in the sender's own memory.
inline constexpr uint32_t kRingFrames = 4096;

// A worker that has more messages of one call's answer on their way, not given back, breaks the protocol.
inline constexpr size_t kMostMessagesAhead = 1024;

enum class FrameType : uint8_t {
  // Gateway to worker.
  kMessage = 1,       // a message of a call; kOpens makes it the call's first, kEnds its last
  kCancel = 2,        // nobody waits for this call any more; it is still to be ended by the worker
  kReleaseReply = 3,  // the reply bytes at offset have been sent and may be used again
                      // (offset 0: there were none); kCredit: they were a message of `call`
  kHead = 4,          // a call head (wire/call_head.h) of the Predict call that the next frame opens
  // Worker to gateway.
  kReply = 16,           // a message of a call's answer; kEnds: the last one, status OK
  kEnd = 17,             // the call ends with status `code`; the payload is its text, or with kTrailing a call end
  kRelease = 18,         // no view of the call's request bytes is left: the slab may be used again
  kReleaseMessage = 19,  // the same of the oldest message of the call that was not released so: of a stream of them
  kInitial = 20,         // the answer's initial metadata, before its first message
  kModel = 21,           // kLoaded: the worker holds the multiplexed model that the payload names; else no more
  kWants = 22,           // the call's handler has taken `instances` messages in all, has answered none since the last,
                         // and waits for the next
  kLacks = 23,           // answers of this lane have waited for long: others, not taken by clients, fill the arena
  kOverShare = 24,       // an answer of the call has waited for long: what its client does not take is its share of it
};

enum FrameFlags : uint8_t {
  kOpens = 1,        // kMessage: first of a call: method, deadline and client are valid. To a user's service it
                     // carries the call head (wire/call_head.h), and messages follow
  kEnds = 2,         // kMessage: the client has no more to send. kReply: the last message
  kHasErrors = 4,    // kReply: error_msg is present, one an instance
  kReleased = 8,     // kReply, kEnd: as kRelease, in the same frame
  kAlone = 16,       // kMessage that opens: may kill the worker; nothing else is executed while it is
  kCompressed = 32,  // kReply: the message is compressed. kInitial: messages may be, by gzip
  kTrailing = 64,    // kEnd: the payload is a call end (wire/call_head.h), and `code` may be OK
  kNoMessage = 128,  // kMessage: there is none, only kEnds
  kCredit = 32,      // kReleaseReply: see there
  kLoaded = 1,       // kModel: see there
};

// One place of a ring. Little-endian, as every machine that MindServe runs on.
struct Frame {
  FrameType type;
  uint8_t flags;
  uint16_t method;      // which of the worker's methods, in the order in which it named them
  uint32_t instances;   // kMessage: how many instances the payload holds. kWants: messages, modulo 2^32
  uint64_t call;        // chosen by the gateway; unique on its lane as long as the call is not both ended and released
  uint64_t offset;      // of the payload, in the sender's arena
  uint64_t length;      // of the payload; 0: none
  int64_t deadline_ns;  // on CLOCK_MONOTONIC; INT64_MAX: none
  uint64_t client;      // whose turn in the worker's queues this takes
  uint32_t code;        // kEnd: a gRPC status code
  uint32_t key_low;     // these two of a kMessage that opens a Predict call: the request's key (base/request_key.h), of
  uint64_t key_high;    // which its id is made if no head gives one
};
static_assert(sizeof(Frame) == kCacheLine);
static_assert(std::is_trivially_copyable_v<Frame>);

}  // namespace mindserve::link
