// What each client holds of a reply arena: the slabs of its answers that the gateway has not given back yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace mindserve::link {

// Slabs are given back by their offset alone, so whose they are is kept here. Clients that hold nothing take no memory.
// Not thread-safe.
class ReplyShares {
 public:
  void Add(uint64_t offset, uint64_t client, size_t bytes);
  // Of a slab that was not added: nothing.
  void Remove(uint64_t offset);

  size_t Held(uint64_t client) const;
  size_t clients() const { return held_.size(); }  // that hold something

 private:
  struct Part {
    uint64_t client;
    size_t bytes;
  };
  std::unordered_map<uint64_t, Part> parts_;   // by offset
  std::unordered_map<uint64_t, size_t> held_;  // by client
};

}  // namespace mindserve::link
