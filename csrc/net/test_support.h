// What the tests of this folder share.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "net/address.h"
#include "net/event_loop.h"
#include "net/tls.h"
#include "net/transport.h"

namespace mindserve::net::testing {

// A loop that runs on a thread of its own.
class LoopThread {
 public:
  LoopThread() : thread_([this] { loop_.Run(nullptr); }) {}
  ~LoopThread() {
    loop_.Stop();
    thread_.join();
  }

  EventLoop& loop() { return loop_; }

  // Runs `task` on the loop's thread and waits for its result.
  template <typename Task>
  auto Call(Task task) {
    std::packaged_task<std::invoke_result_t<Task>()> packaged(std::move(task));
    auto result = packaged.get_future();
    loop_.Post([&packaged] { packaged(); });
    return result.get();
  }

 private:
  EventLoop loop_;
  std::thread thread_;
};

// A directory that is removed with what is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Keeps the log's lines as long as it lives.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  std::vector<std::string> lines() const;

 private:
  struct Lines;
  std::shared_ptr<Lines> lines_;  // also owned by the sink
};

// Connected stream sockets. Blocking.
std::pair<UniqueFd, UniqueFd> SocketPair();

// A blocking socket connected to `address`; an invalid one if it can't be (errno says why).
UniqueFd Connect(const Address& address);

// Reads until the end of file or an error.
std::string ReadAll(int fd);

// `size` bytes in which a wrong offset shows.
std::string Pattern(size_t size);

// What became of a Pump's connection.
struct Pumped {
  Status handshake;
  Peer peer;
  AuthProperties auth;
  std::string received;
  std::string error;  // of a read or write
  bool refused = false;
  size_t largest_read = 0;
  bool end_of_file = false;
};

// The server's side of a connection: sends one text in awkward pieces while it receives another. Made and destroyed on
// the loop's thread, or before it runs and after.
class Pump {
 public:
  // Finishes when `to_send` is sent and `to_receive` bytes have come, or at the end of file.
  Pump(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls, std::string to_send, size_t to_receive);
  void Start();
  std::future<Pumped> Result() { return result_.get_future(); }

 private:
  void OnReadable();
  void OnWritable();
  void MaybeFinish();
  void Finish();

  std::unique_ptr<Transport> transport_;
  const std::string to_send_;
  const size_t to_receive_;
  size_t sent_ = 0;
  bool finished_ = false;
  Pumped pumped_;
  std::promise<Pumped> result_;
};

// Runs a Pump on a loop of its own over `socket` while `client` runs here.
Pumped Serve(UniqueFd socket, std::shared_ptr<const TlsContext> tls, std::string to_send, size_t to_receive,
             const std::function<void()>& client);

// Both ends of a TCP connection over loopback, the client's first. Small buffers make both sides wait often.
std::pair<UniqueFd, UniqueFd> TcpPair(bool small_buffers = false);

// A PEM certificate with its key.
struct Identity {
  std::string certificate;
  std::string key;
};

enum class Validity { kNow, kExpired };

enum class CertificateVersion { k1, k3 };

// A certificate of its own; of version 3 with basicConstraints CA:TRUE, as `openssl req -x509` makes it.
Identity MakeAuthority(const std::string& name, CertificateVersion version = CertificateVersion::k3);
// An authority between `authority` and those that it issues.
Identity IssueAuthority(const Identity& authority, const std::string& name);
// X.509 v1 with the name in CN only, as `openssl x509 -req` without extensions makes it.
Identity Issue(const Identity& authority, const std::string& name, Validity validity = Validity::kNow);
// Of version 3, with alternative names in OpenSSL's form: "DNS:a.example,IP:127.0.0.1".
Identity IssueWithNames(const Identity& authority, const std::string& name, const std::string& alternatives);
// As Issue, with `lifetime` from now on.
Identity IssueFor(const Identity& authority, const std::string& name, std::chrono::seconds lifetime);
// The authority's certificate anew, with `lifetime` from now on.
Identity Reissue(const Identity& authority, std::chrono::seconds lifetime);
// The authority's revocation list, in PEM form.
std::string MakeCrl(const Identity& authority, const std::vector<Identity>& revoked,
                    std::chrono::seconds lifetime = std::chrono::hours(24));

}  // namespace mindserve::net::testing
