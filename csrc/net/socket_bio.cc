#include "net/socket_bio.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace mindserve::net {
namespace {

SocketBio& Socket(BIO* bio) {
  return *static_cast<SocketBio*>(BIO_get_data(bio));
}

int Failed(BIO* bio, int retry_flag) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    BIO_set_flags(bio, retry_flag | BIO_FLAGS_SHOULD_RETRY);
  } else {
    Socket(bio).error = errno;
  }
  return 0;
}

int Read(BIO* bio, char* into, size_t size, size_t* done) {
  SocketBio& socket = Socket(bio);
  BIO_clear_retry_flags(bio);
  if (socket.refused) return 0;
  if (socket.reads_left == 0) socket.halted = true;
  if (socket.halted || std::exchange(socket.drained, false)) {
    errno = EAGAIN;
    return Failed(bio, BIO_FLAGS_READ);
  }
  --socket.reads_left;
  ssize_t n;
  do {
    n = ::recv(socket.fd, into, size, 0);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Failed(bio, BIO_FLAGS_READ);
  if (n == 0) {
    socket.end_of_file = true;
    return 0;
  }
  *done = static_cast<size_t>(n);
  socket.drained = socket.trusts_drained && *done < size;
  const size_t taken = std::min(socket.first.size() - socket.first_size, *done);
  std::memcpy(socket.first.data() + socket.first_size, into, taken);
  socket.first_size += taken;
  return 1;
}

ssize_t Send(int fd, const char* from, size_t size) {
  ssize_t n;
  do {
    n = ::send(fd, from, size, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n;
}

int Write(BIO* bio, const char* from, size_t size, size_t* done) {
  SocketBio& socket = Socket(bio);
  BIO_clear_retry_flags(bio);
  size_t sent = 0;
  if (SendUnsent(socket)) {
    const ssize_t n = Send(socket.fd, from, size);
    if (n < 0 && (!socket.keeps_unsent || (errno != EAGAIN && errno != EWOULDBLOCK))) {
      return Failed(bio, BIO_FLAGS_WRITE);
    }
    if (n > 0) sent = static_cast<size_t>(n);
  } else if (socket.error != 0) {
    return 0;
  }
  if (socket.keeps_unsent && sent < size) {
    if (socket.unsent_size() + size - sent > kMostUnsent && sent == 0) {
      BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
      return 0;
    }
    socket.unsent.insert(socket.unsent.end(), from + sent, from + size);
    sent = size;
  }
  *done = sent;
  return 1;
}

long Control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:
      return Socket(bio).end_of_file ? 1 : 0;
    default:
      return 0;
  }
}

}  // namespace

bool SendUnsent(SocketBio& socket) {
  if (socket.unsent.empty()) return true;
  const ssize_t n = Send(socket.fd, socket.unsent.data() + socket.unsent_offset, socket.unsent_size());
  if (n < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) socket.error = errno;
    return false;
  }
  socket.unsent_offset += static_cast<size_t>(n);
  if (socket.unsent_size() != 0) return false;
  socket.unsent = {};  // most connections wait seldom: no memory meanwhile
  socket.unsent_offset = 0;
  return true;
}

BIO_METHOD* NewSocketBioMethod() {
  // Without BIO_get_new_index: a process has only a hundred of those, and nobody looks for this BIO by its type.
  BIO_METHOD* method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "mindserve socket");
  if (method == nullptr) return nullptr;
  BIO_meth_set_read_ex(method, Read);
  BIO_meth_set_write_ex(method, Write);
  BIO_meth_set_ctrl(method, Control);
  return method;
}

BIO* NewSocketBio(const BIO_METHOD* method, SocketBio* socket) {
  BIO* bio = BIO_new(method);
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, socket);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace mindserve::net
