#include "pipeline/method_plan.h"

#include <string>
#include <string_view>
#include <utility>

namespace mindserve::pipeline {
namespace {

std::string Count(size_t n, std::string_view what) {
  return std::to_string(n) + " " + std::string(what) + (n == 1 ? "" : "s");
}

class Planner {
 public:
  Planner(MethodSpec spec, const StageTargets& targets) : targets_(targets) { plan_.spec = std::move(spec); }

  Result<MethodPlan> Plan() {
    const MethodSpec& spec = plan_.spec;
    plan_.values = spec.inputs.size();
    for (size_t i = 0; i < spec.stages.size(); ++i) MS_RETURN_IF_ERROR(AddStage(i));
    if (spec.results.size() != spec.outputs.size()) {
      return Wrong("gives " + Count(spec.results.size(), "result") + " for " +
                   Count(spec.outputs.size(), "output name"));
    }
    for (size_t i = 0; i < spec.results.size(); ++i) {
      MS_RETURN_IF_ERROR(Resolve(spec.results[i], spec.stages.size(), "result " + std::to_string(i), &plan_.results));
    }
    MarkLastUses();
    return std::move(plan_);
  }

 private:
  Status Wrong(const std::string& what) const {
    return {Code::kInvalidArgument, "method '" + plan_.spec.name + "' " + what};
  }

  Status AddStage(size_t index) {
    const StageSpec& stage = plan_.spec.stages[index];
    const std::string where = "stage " + std::to_string(index);
    const bool is_model = stage.kind == StageSpec::Kind::kModel;
    const size_t known = is_model ? targets_.models.size() : targets_.functions;
    if (stage.target < 0 || static_cast<size_t>(stage.target) >= known) {
      return Wrong(where + " names " + (is_model ? "model " : "function ") + std::to_string(stage.target) +
                   ", of which there are " + std::to_string(known) + ", counted from 0");
    }
    if (stage.outputs_count < 1) {
      return Wrong(where + " has an outputs count of " + std::to_string(stage.outputs_count) + ", expected at least 1");
    }
    const auto outputs = static_cast<size_t>(stage.outputs_count);
    if (is_model) {
      const ModelArity& model = targets_.models[static_cast<size_t>(stage.target)];
      if (stage.inputs.size() != model.inputs) {
        return Wrong(where + " gives " + Count(stage.inputs.size(), "input") + " to a model that takes " +
                     std::to_string(model.inputs));
      }
      if (outputs > model.outputs) {
        return Wrong(where + " expects " + Count(outputs, "output") + " from a model that gives " +
                     std::to_string(model.outputs));
      }
    }
    StagePlan& planned = plan_.stages.emplace_back();
    planned.first_output = plan_.values;
    planned.output_used.resize(outputs);
    plan_.values += outputs;
    for (size_t i = 0; i < stage.inputs.size(); ++i) {
      const std::string which = where + " input " + std::to_string(i);
      MS_RETURN_IF_ERROR(Resolve(stage.inputs[i], index, which, &plan_.stages[index].inputs));
    }
    return Status::Ok();
  }

  // `before`: stages from this one on have not run yet.
  Status Resolve(const ValueRef& ref, size_t before, const std::string& which, std::vector<ValueUse>* uses) const {
    size_t first = 0;
    size_t count = plan_.spec.inputs.size();
    std::string of = "the method";
    if (ref.stage != ValueRef::kMethodInput) {
      if (ref.stage < 0 || static_cast<size_t>(ref.stage) >= plan_.spec.stages.size()) {
        return Wrong(which + " refers to stage number " + std::to_string(ref.stage) + ", of which there are " +
                     std::to_string(plan_.spec.stages.size()) + ", counted from 0");
      }
      const auto stage = static_cast<size_t>(ref.stage);
      of = "stage " + std::to_string(stage);
      if (stage >= before) return Wrong(which + " refers to " + of + ", which has not run by then");
      first = plan_.stages[stage].first_output;
      count = plan_.stages[stage].output_used.size();
    }
    if (ref.index < 0 || static_cast<size_t>(ref.index) >= count) {
      const std::string_view kind = ref.stage == ValueRef::kMethodInput ? "input" : "output";
      return Wrong(which + " refers to " + std::string(kind) + " number " + std::to_string(ref.index) + " of " + of +
                   ", which has " + Count(count, kind) + ", counted from 0");
    }
    uses->push_back({first + static_cast<size_t>(ref.index), false});
    return Status::Ok();
  }

  void MarkLastUses() {
    std::vector<bool> used(plan_.values);
    const auto mark = [&](std::vector<ValueUse>& uses) {
      for (size_t i = uses.size(); i-- > 0;) {
        uses[i].last = !used[uses[i].value];
        used[uses[i].value] = true;
      }
    };
    mark(plan_.results);
    for (size_t i = plan_.stages.size(); i-- > 0;) mark(plan_.stages[i].inputs);
    for (StagePlan& stage : plan_.stages) {
      for (size_t i = 0; i < stage.output_used.size(); ++i) stage.output_used[i] = used[stage.first_output + i];
    }
  }

  const StageTargets targets_;
  MethodPlan plan_{};
};

}  // namespace

Result<MethodPlan> PlanMethod(MethodSpec spec, const StageTargets& targets) {
  return Planner(std::move(spec), targets).Plan();
}

}  // namespace mindserve::pipeline
