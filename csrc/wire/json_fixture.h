// Requests in JSON, converted and read again, for the tests.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "wire/json_request.h"
#include "wire/predict.h"

namespace mindserve::wire::test {

inline constexpr JsonRoute kRoute = {"servable", "method", 3};

// The body of one instance with one input, x.
inline std::string OneInput(std::string_view value) {
  return "{\"instances\": [{\"x\": " + std::string(value) + "}]}";
}

// The text that a body fails with, and its code.
inline Status Refusal(std::string_view body) {
  const Result<std::string> request = PredictRequestFromJson(body, kRoute);
  return request.ok() ? Status::Ok() : request.status();
}

// The inputs of these names of each instance that a body becomes. Tensors keep the message.
inline std::vector<std::vector<Tensor>> Converted(std::string_view body, const std::vector<std::string>& names) {
  Result<std::string> converted = PredictRequestFromJson(body, kRoute);
  EXPECT_TRUE(converted.ok()) << converted.status().message();
  if (!converted.ok()) return {};
  const auto request = std::make_shared<const std::string>(*std::move(converted));
  const auto bytes = std::as_bytes(std::span(*request));
  Route route;
  EXPECT_TRUE(ReadRoute(bytes, 1000, &route).ok());
  EXPECT_EQ(route.servable, "servable");
  EXPECT_EQ(route.method, "method");
  EXPECT_EQ(route.version, 3u);
  std::vector<std::vector<Tensor>> instances;
  InstanceReader reader(bytes, names, request);
  while (reader.Next()) {
    const Status status = reader.Read(&instances.emplace_back());
    EXPECT_TRUE(status.ok()) << status.message();
  }
  EXPECT_TRUE(reader.status().ok());
  return instances;
}

// What one value becomes.
inline Tensor ConvertedValue(std::string_view value) {
  const auto instances = Converted(OneInput(value), {"x"});
  return instances.size() == 1 ? instances[0][0] : Tensor();
}

template <typename T>
std::vector<T> Elements(const Tensor& tensor) {
  std::vector<T> elements(tensor.data().size() / sizeof(T));
  if (!elements.empty()) std::memcpy(elements.data(), tensor.data().data(), tensor.data().size());
  return elements;
}

}  // namespace mindserve::wire::test
