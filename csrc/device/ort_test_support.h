// What the tests of the engine share.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "device/onnxruntime.h"
#include "testing/onnx.h"

namespace mindserve::device {

class OnnxRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string library = mindserve::testing::OnnxRuntimeLibrary();
    ASSERT_FALSE(library.empty())
        << "no onnxruntime package found: install it, or set MINDSERVE_TEST_ORT to the path of "
           "libonnxruntime.so";
    auto engine = OpenOnnxRuntime(library);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
  }

  std::unique_ptr<Model> Load(const std::string& name, const DeviceConfig& config = {}) {
    auto model = engine_->Load(mindserve::testing::ModelFile(name), config);
    EXPECT_TRUE(model.ok()) << model.status().ToString();
    return model.ok() ? *std::move(model) : nullptr;
  }

  std::unique_ptr<Engine> engine_;
};

// A tensor that owns a copy of `values`.
template <typename T>
Tensor Make(DType dtype, Shape shape, const std::vector<T>& values) {
  std::span<std::byte> bytes;
  auto tensor = Tensor::Allocate(dtype, std::move(shape), &bytes);
  EXPECT_TRUE(tensor.ok() && bytes.size() == values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return *std::move(tensor);
}

inline Tensor Floats(Shape shape, const std::vector<float>& values) {
  return Make(DType::kFloat32, std::move(shape), values);
}

template <typename T>
std::vector<T> ValuesOf(const Tensor& tensor) {
  std::vector<T> values(tensor.data().size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

}  // namespace mindserve::device
