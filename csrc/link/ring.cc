#include "link/ring.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace mindserve::link {

// Every publication is followed by a full fence before the other side's sleep flag is read, and every sleeper has one
// between setting its flag and its last look at the counts. Without both, each side can miss the other's store, and the
// sleeper sleeps on.

bool RingWriter::HasRoom() {
  if (written_ - read_ < kRingFrames) return true;
  const uint32_t read = theirs_->read.value.load(std::memory_order_acquire);
  if (written_ - read > kRingFrames) return false;  // a count that can't be: as if the reader did not read
  read_ = read;
  return written_ - read_ < kRingFrames;
}

bool RingWriter::Put(const Frame& frame) {
  if (!HasRoom()) return false;
  mine_->frames[written_ % kRingFrames] = frame;
  ++written_;
  return true;
}

bool RingWriter::Publish() {
  if (published_ == written_) return false;
  published_ = written_;
  mine_->written.value.store(written_, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return true;
}

RingReader::Outcome RingReader::Take(Frame* frame) {
  if (read_ == written_) {
    written_ = theirs_->written.value.load(std::memory_order_acquire);
    if (written_ - read_ > kRingFrames) {
      written_ = read_;
      return Outcome::kFault;
    }
    if (read_ == written_) return Outcome::kEmpty;
  }
  *frame = theirs_->frames[read_ % kRingFrames];
  ++read_;
  return Outcome::kFrame;
}

bool RingReader::HasFrames() const {
  return theirs_->written.value.load(std::memory_order_seq_cst) != read_;
}

bool RingReader::Publish() {
  if (published_ == read_) return false;
  published_ = read_;
  mine_->read.value.store(read_, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (read_ - room_told_ < kRingFrames / 2) return false;
  room_told_ = read_;
  return true;
}

void RingIfAsleep(const SleepFlag& flag, int bell, uint32_t* last_rung) {
  const uint32_t epoch = flag.epoch.load(std::memory_order_seq_cst);
  if (epoch % 2 == 0 || epoch == *last_rung) return;
  *last_rung = epoch;
  // EAGAIN: the bell already rings. Anything else: the sleeper is gone, which its socket's end-of-file tells.
  [[maybe_unused]] const int failed = ::eventfd_write(bell, 1);
}

}  // namespace mindserve::link
