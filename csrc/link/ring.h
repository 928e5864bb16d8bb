// A ring of frames with one writer and one reader in different processes. Each side writes only memory of its own: the
// writer's region holds the frames and how many were written, the reader's holds how many were read.
//
// Nothing here trusts the other side: a count that can't be is a fault, frames are copied out before they are looked
// at.
#pragma once

#include <atomic>
#include <cstdint>

#include "link/frame.h"

namespace mindserve::link {

// Whether the owner of the region sleeps. Odd: it does, and wants its bell rung. Every sleep is another odd number, so
// that a ringer can tell a sleep that it has already ended from the next.
struct alignas(kCacheLine) SleepFlag {
  std::atomic<uint32_t> epoch{0};
};

// Counts run on for ever and wrap around; written minus read is how many frames are there.
struct alignas(kCacheLine) Count {
  std::atomic<uint32_t> value{0};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// The head of each side's region for one lane; the frames follow it.
struct RingBlock {
  Count written;  // frames this side has published
  Count read;     // frames of the other side's ring that this side has taken
  Count starved;  // worker only: 1 while it waits for reply memory, and wants its bell rung for a kReleaseReply
  Frame frames[kRingFrames];
};

class RingWriter {
 public:
  RingWriter() = default;
  // `mine` is this side's block, `theirs` the other's. Both outlive the writer.
  RingWriter(RingBlock* mine, const RingBlock* theirs) : mine_(mine), theirs_(theirs) {}

  // Puts a frame into the ring, unseen until Publish. False if the ring is full, or the reader's count is one that
  // can't be.
  bool Put(const Frame& frame);
  // True if there was something to publish. Sequentially consistent with a following read of the reader's sleep flag.
  bool Publish();
  // Whether Put would find room. Looks at shared memory.
  bool HasRoom();

 private:
  RingBlock* mine_ = nullptr;
  const RingBlock* theirs_ = nullptr;
  uint32_t written_ = 0;    // put
  uint32_t published_ = 0;  // seen by the reader
  uint32_t read_ = 0;       // last seen of the reader's count
};

class RingReader {
 public:
  enum class Outcome : uint8_t { kFrame, kEmpty, kFault };
  RingReader() = default;
  RingReader(RingBlock* mine, const RingBlock* theirs) : mine_(mine), theirs_(theirs) {}

  // Copies the next frame out. kFault: the writer claims more than a ring holds.
  Outcome Take(Frame* frame);
  // Whether the writer has published something that was not taken. Looks at shared memory, sequentially consistent.
  bool HasFrames() const;
  // Tells the writer how far reading has come. Once a round is enough. True when so much was taken since it last said
  // so that a writer may have been waiting for room, and is to be woken.
  bool Publish();

 private:
  RingBlock* mine_ = nullptr;
  const RingBlock* theirs_ = nullptr;
  uint32_t read_ = 0;
  uint32_t published_ = 0;
  uint32_t room_told_ = 0;  // read_ when Publish last returned true
  uint32_t written_ = 0;    // last seen of the writer's count
};

// Rings `bell` if the sleeper behind `flag` sleeps and was not already rung in this sleep (`last_rung`, the ringer's
// own).
void RingIfAsleep(const SleepFlag& flag, int bell, uint32_t* last_rung);

}  // namespace mindserve::link
