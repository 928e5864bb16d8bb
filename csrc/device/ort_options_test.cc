#include "device/ort_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

namespace mindserve::device::ort {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

int SomeCore() {
  return sched_getcpu();
}

TEST(AffinityText, CountsCoresFromOneForEveryThreadButTheCaller) {
  const int core = SomeCore();
  const std::string number = std::to_string(core + 1);
  EXPECT_EQ(*AffinityText({core}, 1), "");
  EXPECT_EQ(*AffinityText({core}, 2), number);
  EXPECT_EQ(*AffinityText({core}, 3), number + ";" + number);
  EXPECT_EQ(*AffinityText({core, core}, 3), number + "," + number + ";" + number + "," + number);
}

TEST(AffinityText, RefusesCoresThatAreNotThere) {
  for (int core : {-1, CPU_SETSIZE - 1, CPU_SETSIZE, 1 << 30}) {
    const auto text = AffinityText({core}, 2);
    ASSERT_FALSE(text.ok());
    EXPECT_EQ(text.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(text.status().message(), HasSubstr("core " + std::to_string(core)));
  }
}

TEST(ProviderOptions, TheUsersComeFirst) {
  DeviceConfig config{.type = DeviceType::kGpu, .device_id = 3};
  EXPECT_THAT(ProviderOptions(config),
              UnorderedElementsAre(Pair("device_id", "3"), Pair("cudnn_conv_algo_search", "HEURISTIC")));
  config.provider_options = {{"cudnn_conv_algo_search", "DEFAULT"}, {"device_id", "7"}};
  EXPECT_THAT(ProviderOptions(config),
              UnorderedElementsAre(Pair("device_id", "3"), Pair("cudnn_conv_algo_search", "DEFAULT")));
}

TEST(ProviderOptions, AscendHasHalfPrecision) {
  DeviceConfig config{.type = DeviceType::kAscend, .device_id = 1};
  EXPECT_THAT(ProviderOptions(config), UnorderedElementsAre(Pair("device_id", "1")));
  config.fp16 = true;
  EXPECT_THAT(ProviderOptions(config),
              UnorderedElementsAre(Pair("device_id", "1"), Pair("precision_mode", "force_fp16")));
}

TEST(DeviceText, NamesTheDevice) {
  EXPECT_EQ(DeviceText({}), "CPU");
  EXPECT_EQ(DeviceText({.type = DeviceType::kGpu, .device_id = 2}), "GPU 2");
  EXPECT_EQ(DeviceText({.type = DeviceType::kAscend}), "Ascend 0");
}

TEST(InstallHint, NamesThePackage) {
  EXPECT_THAT(InstallHint(DeviceType::kGpu), HasSubstr("pip install onnxruntime-gpu[cuda,cudnn]"));
  EXPECT_THAT(InstallHint(DeviceType::kAscend), HasSubstr("pip install onnxruntime-cann"));
  EXPECT_THAT(InstallHint(DeviceType::kCpu), HasSubstr("pip install onnxruntime"));
}

}  // namespace
}  // namespace mindserve::device::ort
