#include "net/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#include "net/address.h"
#include "net/socket.h"

namespace mindserve::net {
namespace {

// Someone else may make or remove the file between two looks at it.
constexpr int kAttempts = 16;

struct Place {
  std::string directory;
  std::string name;
};

Place Split(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// The address of `name` in a directory: by the directory's path if that is short enough, by its descriptor otherwise.
sockaddr_un SocketAddress(const std::string& directory, int directory_fd, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = directory + '/' + name;
  if (path.size() >= sizeof address.sun_path) path = "/proc/self/fd/" + std::to_string(directory_fd) + '/' + name;
  if (path.size() < sizeof address.sun_path) std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::string TemporaryName() {
  std::random_device random;
  char text[24];
  std::snprintf(text, sizeof text, ".ms-%08x%08x", random(), random());
  return text;
}

Result<UniqueFd> BindTemporary(const Place& place, int directory, int mode, std::string* name) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return ErrorStatus(errno, "socket");
  // Linux makes the file with the permission of the unbound socket, less the umask.
  if (::fchmod(socket.get(), static_cast<mode_t>(mode)) != 0) return ErrorStatus(errno, "fchmod");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    *name = TemporaryName();
    const sockaddr_un address = SocketAddress(place.directory, directory, *name);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return socket;
    if (errno != EADDRINUSE) break;
  }
  return ErrorStatus(errno, "making a socket in '" + place.directory + "'");
}

enum class Answer { kLive, kStale, kGone };

// Whether a server answers on the socket file `name`.
Result<Answer> Probe(const Place& place, int directory) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return ErrorStatus(errno, "socket");
  const sockaddr_un address = SocketAddress(place.directory, directory, place.name);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return Answer::kLive;
  switch (errno) {
    case ECONNREFUSED:
      return Answer::kStale;
    case ENOENT:
      return Answer::kGone;
    case EAGAIN:      // its backlog is full
    case EPROTOTYPE:  // it is one of another type
      return Answer::kLive;
    default:
      return ErrorStatus(errno, "asking whether a server listens on it");
  }
}

Status InUse(const char* why) {
  return ErrorStatus(EADDRINUSE, "", why);
}

// renameat2, on file systems that don't know its flags by other means: those are atomic too, but can't notice that a
// stale file was replaced in the meantime.
int RenameNew(int directory, const std::string& from, const std::string& to) {
  if (::renameat2(directory, from.c_str(), directory, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (::linkat(directory, from.c_str(), directory, to.c_str(), 0) != 0) return -1;
  ::unlinkat(directory, from.c_str(), 0);
  return 0;
}

// Puts `file` in the place of the stale socket `stale`. False if that is not there any more.
Result<bool> ReplaceStale(UnixSocketFile& file, const std::string& name, const struct stat& stale) {
  const int directory = file.directory();
  if (::renameat2(directory, file.name().c_str(), directory, name.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno == ENOENT) return false;
    if (errno != EINVAL && errno != ENOSYS) return ErrorStatus(errno, "replacing a stale socket");
    if (::renameat(directory, file.name().c_str(), directory, name.c_str()) != 0) {
      return ErrorStatus(errno, "replacing a stale socket");
    }
    return true;
  }
  struct stat displaced;
  if (::fstatat(directory, file.name().c_str(), &displaced, AT_SYMLINK_NOFOLLOW) == 0 &&
      (displaced.st_dev != stale.st_dev || displaced.st_ino != stale.st_ino)) {
    ::renameat2(directory, file.name().c_str(), directory, name.c_str(), RENAME_EXCHANGE);
    return InUse("another server took it at this moment");
  }
  ::unlinkat(directory, file.name().c_str(), 0);
  return true;
}

Status MoveIntoPlace(UnixSocketFile& file, const Place& place) {
  const int directory = file.directory();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (RenameNew(directory, file.name(), place.name) == 0) {
      file.set_name(place.name);
      return Status::Ok();
    }
    if (errno != EEXIST) return ErrorStatus(errno, "naming the socket");

    struct stat found;
    if (::fstatat(directory, place.name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return ErrorStatus(errno, "looking at it");
    }
    if (!S_ISSOCK(found.st_mode)) {
      return Status(Code::kFailedPrecondition,
                    "there is a file of this name that is no socket: move it away, or give another path");
    }
    const Result<Answer> answer = Probe(place, directory);
    if (!answer.ok()) return answer.status();
    if (*answer == Answer::kLive) return InUse("a server is listening on it");
    if (*answer == Answer::kGone) continue;
    const Result<bool> replaced = ReplaceStale(file, place.name, found);
    if (!replaced.ok()) return replaced.status();
    if (*replaced) {
      file.set_name(place.name);
      return Status::Ok();
    }
  }
  return InUse("it comes and goes");
}

}  // namespace

UnixSocketFile::~UnixSocketFile() {
  if (!directory_ || !owned_) return;
  struct stat now;
  if (::fstatat(directory_.get(), name_.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 && Is(now)) {
    ::unlinkat(directory_.get(), name_.c_str(), 0);
  }
}

Status UnixSocketFile::SetMode(int mode) const {
  if (::fchmodat(directory(), name_.c_str(), static_cast<mode_t>(mode), 0) == 0) return Status::Ok();
  return ErrorStatus(errno, "setting its mode");
}

Result<UnixListener> ListenUnix(const std::string& path, int mode, int backlog) {
  MS_RETURN_IF_ERROR(CheckUnixPath(path));
  const Place place = Split(path);
  if (place.name.empty() || place.name == "." || place.name == "..") {
    return Status(Code::kInvalidArgument, "the path names a directory, not a file");
  }
  UniqueFd directory(::open(place.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return ErrorStatus(errno, "directory '" + place.directory + "'");

  std::string temporary;
  Result<UniqueFd> socket = BindTemporary(place, directory.get(), mode, &temporary);
  if (!socket.ok()) return socket.status();
  struct stat made;
  if (::fstatat(directory.get(), temporary.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrorStatus(errno, "looking at the new socket");
  }
  UnixSocketFile file(std::move(directory), std::move(temporary), made);
  MS_RETURN_IF_ERROR(file.SetMode(mode));  // what the umask took away
  if (::listen(socket->get(), backlog) != 0) return ErrorStatus(errno, "listen");
  MS_RETURN_IF_ERROR(MoveIntoPlace(file, place));
  return UnixListener{std::move(*socket), std::move(file)};
}

Result<std::optional<UnixSocketFile>> FindUnixFile(const std::string& path, const FileId& id) {
  const Place place = Split(path);
  UniqueFd directory(::open(place.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return ErrorStatus(errno, "directory '" + place.directory + "'");
  struct stat found;
  if (::fstatat(directory.get(), place.name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::optional<UnixSocketFile>();
    return ErrorStatus(errno, "looking at it");
  }
  UnixSocketFile file(std::move(directory), place.name, found);
  file.set_owned(false);
  if (!S_ISSOCK(found.st_mode) || file.id() != id) return std::optional<UnixSocketFile>();
  return std::optional(std::move(file));
}

}  // namespace mindserve::net
