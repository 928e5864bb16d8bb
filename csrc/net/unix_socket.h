// A listening Unix socket and its file, inside this folder.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "base/status.h"
#include "base/unique_fd.h"

namespace mindserve::net {

// Removes the file when it goes, unless another one has taken its place.
class UnixSocketFile {
 public:
  UnixSocketFile() = default;
  // The socket file `name` in `directory`, as `made` tells. The directory is held open, since the path may be relative
  // and the working directory may change.
  UnixSocketFile(UniqueFd directory, std::string name, const struct stat& made)
      : directory_(std::move(directory)), name_(std::move(name)), device_(made.st_dev), inode_(made.st_ino) {}
  UnixSocketFile(UnixSocketFile&&) = default;
  UnixSocketFile& operator=(UnixSocketFile&&) = delete;
  ~UnixSocketFile();

  bool Is(const struct stat& other) const { return other.st_dev == device_ && other.st_ino == inode_; }
  int directory() const { return directory_.get(); }
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }  // after a rename

 private:
  UniqueFd directory_;
  std::string name_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

struct UnixListener {
  UniqueFd socket;
  UnixSocketFile file;
};

// Binds and listens; see Listen for what becomes of a file that is there already. The file never has wider permission
// than `mode`, and whoever finds it finds a socket that listens.
Result<UnixListener> ListenUnix(const std::string& path, int mode, int backlog);

}  // namespace mindserve::net
