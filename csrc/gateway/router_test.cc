#include "gateway/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mindserve::gateway {
namespace {

using Outcome = Router::Outcome;

class RouterTest : public testing::Test {
 protected:
  std::shared_ptr<WorkerEnd> Add(uint64_t id, uint64_t version, std::vector<WorkerSpec::Method> methods = {{"m"}}) {
    auto worker = std::make_shared<WorkerEnd>(WorkerSpec{id, "s", version, std::move(methods)}, nullptr, nullptr);
    router_.AddWorker(worker);
    return worker;
  }
  Outcome Find(const std::string& servable, const std::string& method, uint64_t version, size_t count = 1) {
    return router_.Find(servable, method, version, count, &targets_);
  }
  uint64_t First() const { return targets_.at(0).worker->spec().id; }

  CallStats stats_;
  Router router_{stats_};
  std::vector<Router::Target> targets_;
};

TEST_F(RouterTest, WhatIsNotThere) {
  EXPECT_EQ(Find("s", "m", 0), Outcome::kNoServable);
  router_.Declare("s");
  EXPECT_EQ(Find("s", "m", 0), Outcome::kNoWorker);
  EXPECT_EQ(Find("s", "m", 3), Outcome::kNoWorker) << "it may be the version that is starting";
  const auto worker = Add(1, 1);
  EXPECT_EQ(Find("s", "m", 0), Outcome::kFound);
  EXPECT_EQ(Find("s", "m", 3), Outcome::kNoServable);
  EXPECT_EQ(Find("s", "x", 0), Outcome::kNoMethod);
  router_.RemoveWorker(worker);
  EXPECT_EQ(Find("s", "m", 0), Outcome::kNoWorker);
  EXPECT_EQ(Find("s", "x", 0), Outcome::kNoMethod);
  EXPECT_TRUE(router_.Known("s"));
  EXPECT_FALSE(router_.Alive("s"));
  router_.Remove("s");
  EXPECT_EQ(Find("s", "m", 0), Outcome::kNoServable);
  router_.RemoveWorker(worker);
}

TEST_F(RouterTest, EachWorkerNumbersItsMethodsItself) {
  Add(1, 1, {{"a"}, {"b"}});
  Add(2, 1, {{"b"}, {"c"}, {"a"}});
  ASSERT_EQ(Find("s", "a", 0, 2), Outcome::kFound);
  ASSERT_EQ(targets_.size(), 2u);
  for (const auto& target : targets_) EXPECT_EQ(target.method, target.worker->spec().id == 1 ? 0 : 2);
}

TEST_F(RouterTest, AVersionCanBeForgotten) {
  const auto old = Add(1, 1);
  Add(2, 2);
  old->draining = true;
  EXPECT_EQ(Find("s", "m", 1), Outcome::kNoWorker);
  router_.RemoveVersion("s", 1);
  EXPECT_EQ(Find("s", "m", 1), Outcome::kNoServable);
  ASSERT_EQ(Find("s", "m", 0), Outcome::kFound);
  EXPECT_EQ(First(), 2u);
  router_.RemoveWorker(old);
  router_.RemoveVersion("s", 1);
  router_.RemoveVersion("other", 1);
  Add(3, 1);
  ASSERT_EQ(Find("s", "m", 1), Outcome::kFound);
  EXPECT_EQ(First(), 3u);
}

TEST_F(RouterTest, CountsOfVersionsThatAreServedNoMoreAreBounded) {
  const auto counts = [&](uint64_t version) -> MethodCounts& { return stats_.Of({kPredictPath, "s", version, "m"}); };
  constexpr uint64_t kLast = CallStats::kMostRemoved + 2;
  for (uint64_t version = 1; version <= kLast; ++version) {
    Add(version, version);
    counts(version).ended[0] = version;
    counts(version).latency_ns.Add(version);
  }
  counts(1).under_way = 1;
  for (uint64_t version = 1; version <= CallStats::kMostRemoved + 1; ++version) router_.RemoveVersion("s", version);
  EXPECT_EQ(stats_.methods.size(), kLast) << "a call is under way";
  counts(1).under_way = 0;
  router_.RemoveVersion("s", kLast);
  EXPECT_EQ(stats_.methods.size(), CallStats::kMostRemoved + 1);
  EXPECT_FALSE(stats_.methods.contains({kPredictPath, "s", 1, "m"}));
  EXPECT_EQ(counts(0).ended[0], 1u + 2u);
  EXPECT_EQ(counts(0).latency_ns.Read().sum, 1u + 2u);
  EXPECT_EQ(counts(3).ended[0], 3u);
  // One that is served again is not forgotten when others are.
  Add(100, 3);
  for (uint64_t version = 1000; version < 1000 + CallStats::kMostRemoved; ++version) {
    Add(version, version);
    router_.RemoveVersion("s", version);
  }
  EXPECT_EQ(counts(3).ended[0], 3u);
  EXPECT_EQ(stats_.methods.size(), CallStats::kMostRemoved + 2);
}

TEST_F(RouterTest, CountsOfUsersServicesAreBoundedLikewise) {
  constexpr const char* kPath = "/pkg.Service/Method";
  constexpr uint64_t kLast = CallStats::kMostRemoved + 1;
  for (uint64_t version = 1; version <= kLast; ++version) {
    Add(version, version, {{"m"}, {kPath}});
    stats_.Of({kPath, "s", version, "Method"}).ended[0] = version;
    router_.RemoveVersion("s", version);
  }
  EXPECT_EQ(stats_.methods.size(), 2 * kLast);
  EXPECT_FALSE(stats_.methods.contains({kPath, "s", 1, "Method"}));
  EXPECT_EQ(stats_.Of({kPath, "s", 0, "Method"}).ended[0], 1u);
  EXPECT_EQ(stats_.Of({kPath, "s", 2, "Method"}).ended[0], 2u);
}

TEST_F(RouterTest, ServicesAreAnsweredByThoseWhoseVersionsHaveAMethodOfThem) {
  EXPECT_TRUE(router_.Answering("pkg.Service").empty());
  const auto revision = router_.revision();
  const auto worker = Add(1, 1, {{"pkg.Service"}, {"/pkg.Service/A"}, {"/pkg.Service/B"}});
  EXPECT_NE(router_.revision(), revision);
  EXPECT_THAT(router_.Answering("pkg.Service"), testing::ElementsAre("s"));
  EXPECT_TRUE(router_.Answering("pkg").empty());
  EXPECT_TRUE(router_.Answering("Service").empty());
  router_.RemoveWorker(worker);  // it may come back
  EXPECT_THAT(router_.Answering("pkg.Service"), testing::ElementsAre("s"));
  router_.RemoveVersion("s", 1);
  EXPECT_TRUE(router_.Answering("pkg.Service").empty());
}

TEST_F(RouterTest, TheMethodsAreThoseOfTheNewestWorkerThatIsThere) {
  const auto old = Add(1, 1, {{"a"}, {"b"}});
  const auto replacement = Add(2, 1, {{"b"}, {"c"}});
  EXPECT_EQ(Find("s", "a", 0), Outcome::kNoMethod);
  ASSERT_EQ(Find("s", "c", 0, 2), Outcome::kFound);
  EXPECT_EQ(targets_.size(), 1u);
  ASSERT_EQ(Find("s", "b", 0, 2), Outcome::kFound);
  EXPECT_EQ(targets_.size(), 2u);
  router_.RemoveWorker(replacement);
  EXPECT_EQ(Find("s", "a", 0), Outcome::kFound);
  EXPECT_EQ(Find("s", "c", 0), Outcome::kNoMethod);
  router_.RemoveWorker(old);
  EXPECT_EQ(Find("s", "a", 0), Outcome::kNoWorker) << "its successor may have it";
}

TEST_F(RouterTest, EqualLoadsTakeTurnsAndTheLeastLoadedGoesFirst) {
  std::vector<std::shared_ptr<WorkerEnd>> workers;
  for (uint64_t id = 1; id <= 3; ++id) workers.push_back(Add(id, 1));
  std::vector<size_t> asked(4);
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(Find("s", "m", 0), Outcome::kFound);
    ++asked[First()];
  }
  EXPECT_EQ(asked, (std::vector<size_t>{0, 10, 10, 10}));
  workers[0]->load = 5;
  workers[1]->load = 3;
  workers[2]->load = 4;
  ASSERT_EQ(Find("s", "m", 0, 2), Outcome::kFound);
  ASSERT_EQ(targets_.size(), 2u);
  EXPECT_EQ(targets_[0].worker->spec().id, 2u);
  EXPECT_EQ(targets_[1].worker->spec().id, 3u);
}

TEST_F(RouterTest, OneWorkerIsKeptForSuspectsAsLongAsThereIsAnother) {
  const auto pick = [&](Router::Pick how) { return router_.Find("s", "m", 0, 9, &targets_, how); };
  const auto one = Add(5, 1);
  ASSERT_EQ(pick(Router::Pick::kOrdinary), Outcome::kFound);
  EXPECT_EQ(First(), 5u);
  EXPECT_EQ(pick(Router::Pick::kSuspect), Outcome::kNoOther);
  const auto two = Add(7, 1);
  Add(6, 1);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(pick(Router::Pick::kSuspect), Outcome::kFound);
    ASSERT_EQ(targets_.size(), 1u);
    EXPECT_EQ(First(), 7u);
    ASSERT_EQ(pick(Router::Pick::kOrdinary), Outcome::kFound);
    ASSERT_EQ(targets_.size(), 2u);
    for (const auto& target : targets_) EXPECT_NE(target.worker->spec().id, 7u);
  }
  two->gone = true;
  ASSERT_EQ(pick(Router::Pick::kSuspect), Outcome::kFound);
  EXPECT_EQ(First(), 6u);
  ASSERT_EQ(pick(Router::Pick::kOrdinary), Outcome::kFound);
  EXPECT_EQ(First(), 5u);
}

TEST_F(RouterTest, WorkersThatDrainOrAreGoneAreLeftOut) {
  const auto one = Add(1, 1);
  const auto two = Add(2, 2);
  ASSERT_EQ(Find("s", "m", 0), Outcome::kFound);
  EXPECT_EQ(First(), 2u);
  two->draining = true;
  EXPECT_EQ(router_.Workers("s", 2), 0u);
  ASSERT_EQ(Find("s", "m", 0), Outcome::kFound);
  EXPECT_EQ(First(), 1u);
  EXPECT_EQ(Find("s", "m", 2), Outcome::kNoWorker);
  EXPECT_TRUE(router_.Alive("s"));
  one->gone = true;
  EXPECT_EQ(Find("s", "m", 0), Outcome::kNoWorker);
  EXPECT_FALSE(router_.Alive("s"));
}

}  // namespace
}  // namespace mindserve::gateway
