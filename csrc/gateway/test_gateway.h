// A gateway for the tests, and Predict's messages from their bytes.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gateway/gateway.h"
#include "net/address.h"
#include "wire/test_messages.h"

namespace mindserve::gateway {

// One instance: x1 and x2, float32 of shape (1,).
using Pair = std::pair<float, float>;
std::string InstanceOf(const Pair& pair);
std::string PredictRequest(const std::string& servable, const std::string& method, uint64_t version,
                           const std::vector<Pair>& instances);

struct PredictReply {
  std::string spec;         // its content
  std::vector<float> sums;  // of each instance; NaN for an empty one
  std::vector<std::pair<uint64_t, std::string>> errors;
};
PredictReply ParseReply(std::string_view message);

class GatewayTest : public testing::Test {
 protected:
  explicit GatewayTest(int io_threads = 1);
  explicit GatewayTest(const GatewayOptions& options);

  // On a free port of 127.0.0.1, whose address it returns.
  net::Address Listen(const Limits& limits = {});

  std::unique_ptr<Gateway> gateway_;
};

// Waits for something that other threads do; fails the test after 20 s.
bool Eventually(const std::function<bool()>& condition);

}  // namespace mindserve::gateway
