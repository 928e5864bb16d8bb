// A listening Unix socket and its file, inside this folder.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/unique_fd.h"
#include "net/listener.h"

namespace mindserve::net {

// Removes the file when it goes, if it owns it and no other one has taken its place.
class UnixSocketFile {
 public:
  UnixSocketFile() = default;
  // The socket file `name` in `directory`, as `made` tells. The directory is held open, since the path may be relative
  // and the working directory may change.
  UnixSocketFile(UniqueFd directory, std::string name, const struct stat& made)
      : directory_(std::move(directory)), name_(std::move(name)), id_{made.st_dev, made.st_ino} {}
  UnixSocketFile(UnixSocketFile&&) = default;
  UnixSocketFile& operator=(UnixSocketFile&&) = delete;
  ~UnixSocketFile();

  bool Is(const struct stat& other) const { return id_ == FileId{other.st_dev, other.st_ino}; }
  FileId id() const { return id_; }
  int directory() const { return directory_.get(); }
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }  // after a rename
  void set_owned(bool owned) { owned_ = owned; }                // at first it is
  // Sets the file's permissions, whatever the umask is.
  Status SetMode(int mode) const;

 private:
  UniqueFd directory_;
  std::string name_;
  FileId id_;
  bool owned_ = true;
};

struct UnixListener {
  UniqueFd socket;
  UnixSocketFile file;
};

// Binds and listens; see Listen for what becomes of a file that is there already. The file never has wider permission
// than `mode`, and whoever finds it finds a socket that listens.
Result<UnixListener> ListenUnix(const std::string& path, int mode, int backlog);

// The socket file at `path`, not owned; none if it is not `id` that lies there.
Result<std::optional<UnixSocketFile>> FindUnixFile(const std::string& path, const FileId& id);

}  // namespace mindserve::net
