// Small helpers for sockets, inside this folder.
#pragma once

#include <string>

#include "base/status.h"

namespace mindserve::net {

// The system's words for an errno, from any thread.
std::string ErrorText(int error);

// "what: the system's words (detail)", without `what` or `detail` if they are empty, with the code that suits the
// errno.
Status ErrorStatus(int error, const std::string& what, const std::string& detail = "");

void SetNonBlocking(int fd);

// Peer::address of a connected socket; "unknown" when it is not connected any more.
std::string PeerAddress(int fd);

}  // namespace mindserve::net
