// Whose turn it is, through the whole engine.
#include "pipeline/engine.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class EngineOrderTest : public EngineFixture {};

TEST_F(EngineOrderTest, ClientsTakeTurnsAtAModel) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2}), {.max_batch_size = 2}));
  std::vector<std::string> order;
  Request busy(1);
  Request other(2);
  busy.on_done = [&](uint32_t i) { order.push_back("busy " + std::to_string(i)); };
  other.on_done = [&](uint32_t i) { order.push_back("other " + std::to_string(i)); };
  for (uint32_t i = 0; i < 4; ++i) Submit(method, busy, i, {Pair(1, 2), Pair(3, 4)});
  for (uint32_t i = 0; i < 2; ++i) Submit(method, other, i, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_THAT(order, ElementsAre("busy 0", "other 0", "busy 1", "other 1", "busy 2", "busy 3"));
}

TEST_F(EngineOrderTest, AClientsEarliestDeadlineGoesFirst) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2}), {.max_batch_size = 1}));
  std::vector<std::string> order;
  Request none(1);
  Request late(1, time_.Now() + 500ms);
  Request early(1, time_.Now() + 100ms);
  none.on_done = [&](uint32_t) { order.emplace_back("none"); };
  late.on_done = [&](uint32_t) { order.emplace_back("late"); };
  early.on_done = [&](uint32_t) { order.emplace_back("early"); };
  for (Request* request : {&none, &late, &early}) Submit(method, *request, 0, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_THAT(order, ElementsAre("early", "late", "none"));
}

TEST_F(EngineOrderTest, ModelsTakeTurnsOnTheRuntimeThread) {
  std::vector<std::string> order;
  const auto model = [&](std::string name) { return AddModelOf({-1, 2}, [&order, name] { order.push_back(name); }); };
  const int a = AddModelMethod(AddShort(model("a"), {.max_batch_size = 1}));
  const int b = AddModelMethod(AddShort(model("b"), {.max_batch_size = 1}));
  order.clear();
  Request request;
  for (uint32_t i = 0; i < 3; ++i) Submit(a, request, i, {Pair(1, 2), Pair(3, 4)});
  Submit(b, request, 3, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_THAT(order, ElementsAre("a", "b", "a", "a"));
}

}  // namespace
}  // namespace mindserve::pipeline
