#include "pipeline/method_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mindserve::pipeline {
namespace {

using ::testing::ElementsAre;

constexpr ModelArity kModels[] = {{2, 1}, {1, 2}};
constexpr StageTargets kTargets = {kModels, 2};

ValueRef Input(int index) {
  return {ValueRef::kMethodInput, index};
}
ValueRef Output(int stage, int index = 0) {
  return {stage, index};
}
StageSpec Model(int target, std::vector<ValueRef> inputs, int outputs = 1) {
  return {StageSpec::Kind::kModel, target, std::move(inputs), outputs, ""};
}
StageSpec Function(int target, std::vector<ValueRef> inputs, int outputs = 1) {
  return {StageSpec::Kind::kFunction, target, std::move(inputs), outputs, ""};
}
MethodSpec Method(std::vector<StageSpec> stages, std::vector<ValueRef> results) {
  MethodSpec spec;
  spec.name = "m";
  spec.inputs = {"a", "b"};
  spec.outputs.resize(results.size(), "y");
  spec.stages = std::move(stages);
  spec.results = std::move(results);
  return spec;
}

std::string ErrorOf(MethodSpec spec) {
  auto plan = PlanMethod(std::move(spec), kTargets);
  if (plan.ok()) return "none";
  EXPECT_EQ(plan.status().code(), Code::kInvalidArgument);
  return plan.status().message();
}

std::vector<size_t> Places(const std::vector<ValueUse>& uses) {
  std::vector<size_t> places;
  for (const ValueUse& use : uses) places.push_back(use.value);
  return places;
}
std::vector<bool> Lasts(const std::vector<ValueUse>& uses) {
  std::vector<bool> lasts;
  for (const ValueUse& use : uses) lasts.push_back(use.last);
  return lasts;
}

TEST(MethodPlanTest, ValuesHavePlaces) {
  auto plan = PlanMethod(
      Method({Function(0, {Input(1)}, 2), Model(0, {Output(0, 1), Input(0)})}, {Output(1), Output(0, 1)}), kTargets);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->values, 5u);
  EXPECT_THAT(Places(plan->stages[0].inputs), ElementsAre(1));
  EXPECT_EQ(plan->stages[0].first_output, 2u);
  EXPECT_THAT(Places(plan->stages[1].inputs), ElementsAre(3, 0));
  EXPECT_EQ(plan->stages[1].first_output, 4u);
  EXPECT_THAT(Places(plan->results), ElementsAre(4, 3));
}

TEST(MethodPlanTest, TheLastUseOfAValueIsKnown) {
  auto plan = PlanMethod(Method({Function(0, {Input(0), Input(0), Input(1)}), Function(1, {Input(0), Output(0)})},
                                {Input(0), Output(1), Output(1)}),
                         kTargets);
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(Lasts(plan->stages[0].inputs), ElementsAre(false, false, true));
  EXPECT_THAT(Lasts(plan->stages[1].inputs), ElementsAre(false, true));
  EXPECT_THAT(Lasts(plan->results), ElementsAre(true, false, true));
}

TEST(MethodPlanTest, OutputsThatNobodyUsesAreKnown) {
  auto plan = PlanMethod(Method({Function(0, {Input(0)}, 3)}, {Output(0, 1)}), kTargets);
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->stages[0].output_used, ElementsAre(false, true, false));
}

TEST(MethodPlanTest, StagesAreNotNeeded) {
  EXPECT_EQ(ErrorOf(Method({}, {Input(1), Input(0)})), "none");
}

TEST(MethodPlanTest, NeitherAreInputsOfAFunction) {
  EXPECT_EQ(ErrorOf(Method({Function(0, {})}, {Output(0)})), "none");
}

TEST(MethodPlanTest, FewerOutputsThanTheModelHasMayBeUsed) {
  EXPECT_EQ(ErrorOf(Method({Model(1, {Input(0)}, 1)}, {Output(0)})), "none");
}

TEST(MethodPlanTest, TargetsMustBeThere) {
  EXPECT_EQ(ErrorOf(Method({Model(2, {})}, {})),
            "method 'm' stage 0 names model 2, of which there are 2, counted from 0");
  EXPECT_EQ(ErrorOf(Method({Function(-1, {})}, {})),
            "method 'm' stage 0 names function -1, of which there are 2, counted from 0");
}

TEST(MethodPlanTest, CountsMustBeRight) {
  EXPECT_EQ(ErrorOf(Method({Model(0, {Input(0)})}, {})), "method 'm' stage 0 gives 1 input to a model that takes 2");
  EXPECT_EQ(ErrorOf(Method({Model(1, {Input(0)}, 3)}, {})),
            "method 'm' stage 0 expects 3 outputs from a model that gives 2");
  EXPECT_EQ(ErrorOf(Method({Function(0, {}, 0)}, {})),
            "method 'm' stage 0 has an outputs count of 0, expected at least 1");
  MethodSpec spec = Method({}, {Input(0)});
  spec.outputs.push_back("z");
  EXPECT_EQ(ErrorOf(spec), "method 'm' gives 1 result for 2 output names");
}

TEST(MethodPlanTest, ValuesMustBeMadeBeforeTheyAreUsed) {
  EXPECT_EQ(ErrorOf(Method({Function(0, {Output(1)}), Function(0, {})}, {})),
            "method 'm' stage 0 input 0 refers to stage 1, which has not run by then");
  EXPECT_EQ(ErrorOf(Method({Function(0, {Input(0), Output(0)})}, {})),
            "method 'm' stage 0 input 1 refers to stage 0, which has not run by then");
}

TEST(MethodPlanTest, ReferencesMustBeInRange) {
  EXPECT_EQ(ErrorOf(Method({Function(0, {Input(2)})}, {})),
            "method 'm' stage 0 input 0 refers to input number 2 of the method, which has 2 inputs, counted from 0");
  EXPECT_EQ(ErrorOf(Method({Function(0, {Input(-1)})}, {})),
            "method 'm' stage 0 input 0 refers to input number -1 of the method, which has 2 inputs, counted from 0");
  EXPECT_EQ(ErrorOf(Method({Function(0, {}), Function(1, {Output(0, 1)})}, {})),
            "method 'm' stage 1 input 0 refers to output number 1 of stage 0, which has 1 output, counted from 0");
  EXPECT_EQ(ErrorOf(Method({Function(0, {Output(7)})}, {})),
            "method 'm' stage 0 input 0 refers to stage number 7, of which there are 1, counted from 0");
  EXPECT_EQ(ErrorOf(Method({}, {Output(-2)})),
            "method 'm' result 0 refers to stage number -2, of which there are 0, counted from 0");
  EXPECT_EQ(ErrorOf(Method({Function(0, {}, 2)}, {Output(0), Output(0, 2)})),
            "method 'm' result 1 refers to output number 2 of stage 0, which has 2 outputs, counted from 0");
}

}  // namespace
}  // namespace mindserve::pipeline
