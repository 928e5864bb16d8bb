#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "link/arena.h"
#include "link/frame.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace mindserve::link {
namespace {

Status SystemError(const char* what, size_t size) {
  const Code code = errno == ENOMEM || errno == EMFILE || errno == ENFILE || errno == ENOSPC ? Code::kResourceExhausted
                                                                                             : Code::kInternal;
  return {code, "shared memory of " + std::to_string(size) + " bytes: " + what + ": " + std::strerror(errno)};
}

size_t RoundToPages(size_t size) {
  return (size + kPage - 1) / kPage * kPage;
}

}  // namespace

Result<Region> Region::Create(const char* name, size_t size) {
  const size_t rounded = RoundToPages(size);
  Region region;
  region.fd_ = UniqueFd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!region.fd_) return SystemError("memfd_create", rounded);
  if (::ftruncate(region.fd(), static_cast<off_t>(rounded)) != 0) return SystemError("ftruncate", rounded);
  void* data = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, region.fd(), 0);
  if (data == MAP_FAILED) return SystemError("mmap", rounded);
  region.data_ = static_cast<std::byte*>(data);
  region.size_ = rounded;
  // Ours is the only mapping that may write. Kernels before 5.1 lack that seal; the size is sealed all the same.
  constexpr int kSize = F_SEAL_SHRINK | F_SEAL_GROW;
  if (::fcntl(region.fd(), F_ADD_SEALS, kSize | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0 &&
      ::fcntl(region.fd(), F_ADD_SEALS, kSize | F_SEAL_SEAL) != 0) {
    return SystemError("sealing", rounded);
  }
  return region;
}

Result<Region> Region::Open(UniqueFd fd, size_t min_size) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Status(Code::kInvalidArgument, "shared memory: the region given is not sealed against shrinking");
  }
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return SystemError("fstat", min_size);
  const auto size = static_cast<size_t>(info.st_size);
  if (size < min_size) {
    return Status(Code::kInvalidArgument, "shared memory: the region given has " + std::to_string(size) +
                                              " bytes, expected at least " + std::to_string(min_size));
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (data == MAP_FAILED) return SystemError("mmap", size);
  Region region;
  region.fd_ = std::move(fd);
  region.data_ = static_cast<std::byte*>(data);
  region.size_ = size;
  return region;
}

Region::Region(Region&& other) noexcept
    : fd_(std::move(other.fd_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Region::~Region() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace mindserve::link
