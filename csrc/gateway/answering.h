// Who answers a gRPC service, for clients that name nobody.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gateway/call.h"
#include "gateway/router.h"
#include "gateway/traffic.h"

namespace mindserve::gateway {

// Belongs to one I/O thread, as what it looks at.
class Answering {
 public:
  // All outlive it. `service`: full name.
  Answering(std::string_view service, const Router& router, const Traffic& traffic)
      : service_(service), router_(router), traffic_(traffic) {}

  // The servables that a client may mean who names none, sorted. A name that is split stands for its variations'
  // servables, and its mirrors' are not for clients.
  const std::vector<std::string>& Names();
  // Those of them that the call's client may call: of others it is told nothing.
  std::vector<std::string> NamesFor(const Call& call);
  // The one that a call means which names nobody; empty: nobody answers. NOT_FOUND: there are several;
  // PERMISSION_DENIED: its client may call none of them. `what`: that they answer, in words.
  Result<std::string> Meant(const Call& call, const std::string& what);

 private:
  const std::string service_;
  const Router& router_;
  const Traffic& traffic_;
  std::vector<std::string> names_;
  // Of both, when the names were found.
  std::pair<uint64_t, uint64_t> revisions_{UINT64_MAX, UINT64_MAX};
};

// "'a', 'b'"
std::string Quoted(const std::vector<std::string>& names);

}  // namespace mindserve::gateway
