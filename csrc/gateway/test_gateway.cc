#include "gateway/test_gateway.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

namespace mindserve::gateway {
namespace {

std::string Float(float value) {
  return wire::test::NumericTensor({1}, 11, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

// Reads the fields of a message that the gateway wrote, trusting it.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}
  bool Next() {
    if (rest_.empty()) return false;
    const uint64_t key = Number();
    field = static_cast<uint32_t>(key >> 3);
    value = Number();
    content = {};
    if ((key & 7) == 2) {
      content = rest_.substr(0, value);
      rest_.remove_prefix(value);
    }
    return true;
  }
  uint32_t field = 0;
  uint64_t value = 0;
  std::string_view content;

 private:
  uint64_t Number() {
    uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      number |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return number;
    }
  }
  std::string_view rest_;
};

std::string_view Child(std::string_view message, uint32_t number) {
  Fields fields(message);
  std::string_view found;
  while (fields.Next()) {
    if (fields.field == number) found = fields.content;
  }
  return found;
}

}  // namespace

std::string InstanceOf(const Pair& pair) {
  return wire::test::Instance(wire::test::Item("x1", Float(pair.first)) + wire::test::Item("x2", Float(pair.second)));
}

std::string PredictRequest(const std::string& servable, const std::string& method, uint64_t version,
                           const std::vector<Pair>& instances) {
  std::string request = wire::test::Field(1, wire::test::Spec(servable, method, version));
  for (const Pair& pair : instances) request += InstanceOf(pair);
  return request;
}

PredictReply ParseReply(std::string_view message) {
  PredictReply reply;
  Fields fields(message);
  while (fields.Next()) {
    if (fields.field == 1) {
      reply.spec = fields.content;
    } else if (fields.field == 3) {
      // Instance -> items -> value -> data.
      const std::string_view data = Child(Child(Child(fields.content, 1), 2), 3);
      float sum = std::nanf("");
      if (data.size() == sizeof(sum)) std::memcpy(&sum, data.data(), sizeof(sum));
      reply.sums.push_back(sum);
    } else if (fields.field == 4) {
      Fields error(fields.content);
      std::pair<uint64_t, std::string> said{0, ""};
      while (error.Next()) {
        if (error.field == 1) said.first = error.value;
        if (error.field == 2) said.second = error.content;
      }
      reply.errors.push_back(said);
    }
  }
  return reply;
}

GatewayTest::GatewayTest(int io_threads) : GatewayTest(GatewayOptions{.io_threads = io_threads}) {}

GatewayTest::GatewayTest(const GatewayOptions& options) {
  auto gateway = Gateway::Create(options);
  EXPECT_TRUE(gateway.ok()) << gateway.status().ToString();
  gateway_ = *std::move(gateway);
}

net::Address GatewayTest::Listen(const Limits& limits) {
  std::vector<ListenerSpec> listeners(1);
  listeners[0].address.host = "127.0.0.1";
  auto addresses = gateway_->Listen(std::move(listeners), limits);
  EXPECT_TRUE(addresses.ok()) << addresses.status().ToString();
  return addresses->front();
}

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "what is waited for did not happen";
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

}  // namespace mindserve::gateway
