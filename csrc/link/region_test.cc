#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "link/arena.h"
#include "link/frame.h"

namespace mindserve::link {
namespace {

TEST(Region, IsReadByTheOtherSideAndWrittenByNobodyElse) {
  auto ours = Region::Create("test", 10);
  ASSERT_TRUE(ours.ok()) << ours.status().ToString();
  EXPECT_EQ(ours->size(), kPage);
  std::memcpy(ours->data(), "hello", 5);

  auto theirs = Region::Open(UniqueFd(::dup(ours->fd())), kPage);
  ASSERT_TRUE(theirs.ok()) << theirs.status().ToString();
  EXPECT_EQ(std::memcmp(theirs->data(), "hello", 5), 0);
  ours->data()[0] = std::byte{'j'};
  EXPECT_EQ(theirs->data()[0], std::byte{'j'});

  EXPECT_EQ(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, ours->fd(), 0), MAP_FAILED);
  EXPECT_NE(::ftruncate(ours->fd(), 0), 0);
  EXPECT_NE(::ftruncate(ours->fd(), 2 * kPage), 0);
  EXPECT_LT(::write(ours->fd(), "x", 1), 0);
}

TEST(Region, RefusesWhatMayShrinkOrIsTooSmall) {
  UniqueFd loose(::memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(loose.get(), kPage), 0);
  const auto unsealed = Region::Open(std::move(loose), kPage);
  EXPECT_EQ(unsealed.status().code(), Code::kInvalidArgument);

  const auto ours = Region::Create("test", kPage);
  ASSERT_TRUE(ours.ok());
  const auto small = Region::Open(UniqueFd(::dup(ours->fd())), kPage + 1);
  EXPECT_EQ(small.status().code(), Code::kInvalidArgument);
  EXPECT_NE(small.status().message().find("4097"), std::string::npos);

  UniqueFd pipe_ends[2];
  int raw[2];
  ASSERT_EQ(::pipe(raw), 0);
  pipe_ends[0].reset(raw[0]);
  pipe_ends[1].reset(raw[1]);
  EXPECT_FALSE(Region::Open(std::move(pipe_ends[0]), 1).ok());
}

TEST(Region, MovesAndUnmapsOnce) {
  auto first = Region::Create("test", kPage);
  ASSERT_TRUE(first.ok());
  std::byte* const data = first->data();
  Region second(*std::move(first));
  EXPECT_EQ(second.data(), data);
  Region third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  data[0] = std::byte{1};
}

}  // namespace
}  // namespace mindserve::link
