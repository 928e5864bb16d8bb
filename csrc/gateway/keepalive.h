// How clients are noticed that went away without a word.
#pragma once

#include <chrono>

namespace mindserve::gateway {

struct KeepAlive {
  // A client from which nothing came for so long is sent a PING; one that then says nothing at all for so long, while
  // it takes nothing either, is gone. The second leaves room for clients that look at an idle connection now and then.
  std::chrono::milliseconds time{300'000};
  std::chrono::milliseconds timeout{20'000};
};

}  // namespace mindserve::gateway
