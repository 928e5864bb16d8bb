#include "pipeline/model_stage.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "device/signature.h"

namespace mindserve::pipeline {
namespace {

using batching::BatchLayout;
using batching::Item;

constexpr Duration kTooLongToRepeat = std::chrono::seconds(1);

std::string InputName(const ModelOptions& options, const device::TensorSpec& spec, size_t index) {
  return "model '" + options.name + "' input " + std::to_string(index) + " '" + spec.name + "'";
}

bool IsStatic(const device::TensorSpec& spec) {
  return spec.ranked && spec.shape.Elements().has_value();
}

bool IsWhole(const BatchLayout& layout, size_t input) {
  return input < layout.whole_inputs.size() && layout.whole_inputs[input];
}

Result<Tensor> Zeros(const device::TensorSpec& row) {
  const auto elements = row.shape.Elements();
  if (IsText(row.dtype)) {
    return Tensor::TextView(row.dtype, row.shape, std::vector<std::string_view>(*elements), nullptr);
  }
  std::span<std::byte> bytes;
  auto zeros = Tensor::Allocate(row.dtype, row.shape, &bytes);
  if (zeros.ok() && !bytes.empty()) std::memset(bytes.data(), 0, bytes.size());
  return zeros;
}

// What a failed run on zeros says of the model. FAILED_PRECONDITION, as for one that can't be warmed up: other data may
// do what zeros can't. That is so if the graph itself failed, with a code that an operator gives to values it refuses;
// what lacks (memory, a device that works, a kernel) has others. Outputs that it gave, but too few or without the
// batch's dimension, are so whatever the data.
Status FirstRunFailed(const Status& status, bool gave_outputs) {
  Code code = status.code();
  if (code == Code::kFailedPrecondition) {
    code = Code::kInternal;  // the device's failure, of which it is not enough to warn
  } else if (!gave_outputs && (code == Code::kInvalidArgument || code == Code::kInternal)) {
    code = Code::kFailedPrecondition;
  }
  return {code, "its first run on zeros failed: " + status.message()};
}

// Whether fewer instances, or others, may do better: not if the device fails, or lacks an operator.
bool MayBeOneInstances(const Status& status) {
  return status.code() != Code::kFailedPrecondition && status.code() != Code::kUnimplemented;
}

}  // namespace

Result<BatchLayout> FindLayout(const device::Model& model, const ModelOptions& options) {
  const auto wrong = [](std::string text) { return Status(Code::kInvalidArgument, std::move(text)); };
  const auto& inputs = model.inputs();
  BatchLayout layout;
  layout.batched = options.with_batch_dim;
  layout.whole_inputs.resize(inputs.size());
  for (size_t index : options.without_batch_dim_inputs) {
    if (index >= inputs.size()) {
      return wrong("without_batch_dim_inputs of model '" + options.name + "' names input " + std::to_string(index) +
                   ", but the model has " + std::to_string(inputs.size()) + ", counted from 0");
    }
    layout.whole_inputs[index] = true;
  }
  if (!layout.batched) return layout;

  const auto size_text = [](int64_t dim) { return dim < 0 ? std::string("of any size") : "of " + std::to_string(dim); };
  std::optional<size_t> first;  // the first input with a batch dimension
  int64_t batch = -1;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (IsWhole(layout, i)) continue;
    if (inputs[i].ranked && inputs[i].shape.rank() == 0) {
      return wrong(
          InputName(options, inputs[i], i) +
          " has the shape (), without a first dimension for the batch: name it in without_batch_dim_inputs, or "
          "declare the model with with_batch_dim=False");
    }
    const int64_t dim = inputs[i].ranked ? inputs[i].shape[0] : -1;
    if (dim == 0) {
      return wrong(InputName(options, inputs[i], i) + " has the shape " + inputs[i].shape.ToString() +
                   ": its batches are fixed to no rows");
    }
    if (!first) {
      first = i;
      batch = dim;
    } else if (dim != batch) {
      return wrong("the inputs of model '" + options.name +
                   "' don't agree on a batch size: the first dimension of input " + std::to_string(*first) + " '" +
                   inputs[*first].name + "' is " + size_text(batch) + ", that of input " + std::to_string(i) + " '" +
                   inputs[i].name + "' is " + size_text(dim) +
                   "; name inputs that have no batch dimension in without_batch_dim_inputs");
    }
  }
  if (!first) {
    return wrong("model '" + options.name +
                 "' has no input with a batch dimension: declare it with with_batch_dim=False");
  }
  layout.fixed_rows = batch > 0 ? static_cast<size_t>(batch) : 0;
  return layout;
}

Result<std::unique_ptr<ModelStage>> ModelStage::Create(std::shared_ptr<device::Model> model, ModelOptions options,
                                                       const TimeSource& time, Mailbox& mailbox) {
  if (model == nullptr) return Status(Code::kInvalidArgument, "no model was given for '" + options.name + "'");
  auto layout = FindLayout(*model, options);
  if (!layout.ok()) return layout.status();
  std::vector<device::TensorSpec> rows = model->inputs();
  bool mixed = false;  // whether instances of unequal shape or value can come
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool whole = !layout->batched || IsWhole(*layout, i);
    if (!whole && rows[i].ranked) rows[i].shape = rows[i].shape.WithoutFirst();
    mixed = mixed || (layout->batched && (whole || !IsStatic(rows[i])));
  }
  batching::QueueOptions queue;
  queue.max_batch_size = !layout->batched         ? 1
                         : layout->fixed_rows > 0 ? layout->fixed_rows
                                                  : std::max<size_t>(options.max_batch_size, 1);
  queue.max_queue_delay = options.max_queue_delay;
  if (mixed) queue.key.emplace(layout->whole_inputs);
  return std::unique_ptr<ModelStage>(new ModelStage(std::move(model), std::move(options), *std::move(layout),
                                                    std::move(rows), std::move(queue), time, mailbox));
}

ModelStage::ModelStage(std::shared_ptr<device::Model> model, ModelOptions options, BatchLayout layout,
                       std::vector<device::TensorSpec> rows, batching::QueueOptions queue, const TimeSource& time,
                       Mailbox& mailbox)
    : model_(std::move(model)),
      options_(std::move(options)),
      layout_(std::move(layout)),
      rows_(std::move(rows)),
      time_(time),
      mailbox_(mailbox),
      queue_(time, std::move(queue)) {}

ModelStage::~ModelStage() {
  queue_.Close();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status ModelStage::Admit(std::span<Tensor> tensors) const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    MS_RETURN_IF_ERROR(device::CheckInput(rows_[i], i, tensors[i]));
    if (tensors[i].shape() == rows_[i].shape || !IsStatic(rows_[i])) continue;
    auto reshaped = tensors[i].Reshaped(rows_[i].shape);
    if (!reshaped.ok()) return reshaped.status();
    tensors[i] = *std::move(reshaped);
  }
  return Status::Ok();
}

Status ModelStage::WarmUp() {
  if (!has_turn_) return {Code::kFailedPrecondition, "model '" + options_.name + "' is running already"};
  for (int run = 0; run < 2; ++run) {
    Item item;
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (!IsStatic(rows_[i])) {
        return {Code::kFailedPrecondition,
                InputName(options_, rows_[i], i) + " has dynamic dimensions besides the batch: " +
                    (rows_[i].ranked ? rows_[i].shape.ToString() + " for an instance" : "not even its rank is known")};
      }
      auto zeros = Zeros(rows_[i]);
      if (!zeros.ok()) return zeros.status();
      item.tensors.push_back(*std::move(zeros));
    }
    measured_ = false;
    Item* const items[] = {&item};
    Duration took{};
    if (Status status = RunTimed(items, time_.Now(), &took); !status.ok()) {
      measured_ = false;
      return FirstRunFailed(status, gave_outputs_);
    }
    // The first run does what is done only once: it says little about the others.
    if (average_ <= kLongRun || average_ > kTooLongToRepeat) break;
  }
  return Status::Ok();
}

Status ModelStage::RunBatch(std::span<Item* const> items, std::vector<Status>* failures) noexcept {
  const TimePoint start = time_.Now();
  failures->clear();
  stats_->batch_sizes.Add(items.size());
  stats_->execution.Begin(start.time_since_epoch().count());
  for (const Item* item : items) {
    stats_->queue_ns.AddTime(start - item->arrival());
    stats_->execution.Add(item->mark);
  }
  Status status = RunCounted(items, start);
  if (!status.ok() && items.size() > 1 && MayBeOneInstances(status)) {
    try {
      failures->resize(items.size());
      status = Status::Ok();
      RunHalves(items, *failures);
    } catch (const std::bad_alloc&) {  // then nobody is told apart
    }
  }
  stats_->execution.End();
  return status.ok() ? Status::Ok() : Named(std::move(status));
}

void ModelStage::RunHalves(std::span<Item* const> items, std::span<Status> failures) noexcept {
  const size_t middle = items.size() / 2;
  for (const auto& [begin, count] : {std::pair(size_t{0}, middle), std::pair(middle, items.size() - middle)}) {
    const auto half = items.subspan(begin, count);
    // What a run may take counts for each.
    const TimePoint start = time_.Now();
    stats_->execution.Begin(start.time_since_epoch().count());
    Status status = RunCounted(half, start);
    if (status.ok()) continue;
    if (count > 1) {
      RunHalves(half, failures.subspan(begin, count));
    } else {
      failures[begin] = Named(std::move(status));
    }
  }
}

Status ModelStage::RunCounted(std::span<Item* const> items, TimePoint start) noexcept {
  Duration took{};
  Status status = RunTimed(items, start, &took);
  stats_->run_ns.AddTime(took);
  queue_.NoteRun(took, items.size());
  return status;
}

Status ModelStage::Named(Status status) const noexcept {
  try {
    return {status.code(), "Run model '" + options_.name + "' failed: " + status.message()};
  } catch (const std::exception&) {
    return status;
  }
}

Status ModelStage::RunTimed(std::span<Item* const> items, TimePoint start, Duration* took) noexcept {
  Status status;
  try {
    try {
      status = TryRun(items);
    } catch (const std::bad_alloc&) {
      status = Status(Code::kResourceExhausted, "out of memory");
    } catch (const std::exception& e) {
      status = Status(Code::kInternal, e.what());
    }
  } catch (...) {
    status = Status(Code::kInternal, "");
  }
  // What the instances looked at is let go here, not when the next batch comes.
  inputs_.clear();
  *took = time_.Now() - start;
  Measure(*took);
  return status;
}

Status ModelStage::TryRun(std::span<Item* const> items) {
  gave_outputs_ = false;
  MS_RETURN_IF_ERROR(batching::Gather(layout_, items, pool_, &inputs_));
  auto outputs = model_->Run(inputs_);
  if (!outputs.ok()) return outputs.status();
  gave_outputs_ = true;
  if (outputs->size() != model_->outputs().size()) {
    return {Code::kInternal, "it gave " + std::to_string(outputs->size()) + " outputs, expected " +
                                 std::to_string(model_->outputs().size())};
  }
  Status scattered = batching::Scatter(layout_, *outputs, items);
  if (scattered.code() == Code::kInternal && ShapesAreTheInstances()) {
    return {Code::kInvalidArgument, scattered.message()};
  }
  return scattered;
}

// Outputs without a row for each instance are the model's defect, unless their shapes come of those that instances
// chose. One that never has a dimension does not.
bool ModelStage::ShapesAreTheInstances() const {
  const auto never_has_rows = [](const device::TensorSpec& spec) { return spec.ranked && spec.shape.rank() == 0; };
  return !std::ranges::all_of(rows_, IsStatic) && std::ranges::none_of(model_->outputs(), never_has_rows);
}

// Rises fast and falls slowly: a long run holds up everybody, a handoff only the one.
void ModelStage::Measure(Duration run) {
  if (!std::exchange(measured_, true)) {
    average_ = run;
  } else if (run > average_) {
    average_ += (run - average_) / 2;
  } else {
    average_ -= (average_ - run) / 16;
  }
}

bool ModelStage::RunsWithin(Duration limit) const {
  return measured_ && average_ <= limit && options_.timeout <= Duration::zero();
}

bool ModelStage::HandOver() {
  if (!thread_.joinable()) {
    if (no_thread_) return false;
    try {
      thread_ = std::thread([this] { ThreadMain(); });
    } catch (const std::system_error& e) {
      no_thread_ = true;
      Log(LogLevel::kWarning, "no thread could be started for model '" + options_.name +
                                  "', which runs on the worker's own from now on: " + e.what());
      return false;
    }
  }
  has_turn_ = false;
  {
    const std::lock_guard lock(mutex_);
    thread_has_turn_ = true;
  }
  changed_.notify_all();
  return true;
}

void ModelStage::ThreadMain() {
  while (WaitForTurn() && TakeAndRun()) {
  }
}

bool ModelStage::WaitForTurn() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return thread_has_turn_ || stopping_; });
  return !stopping_;
}

bool ModelStage::TakeAndRun() {
  batching::Taken taken = queue_.Take();
  if (taken.closed) return false;
  mailbox_.PostExpired(std::move(taken.expired));
  if (taken.batch.empty()) return true;
  std::unique_ptr<Run> run;
  try {
    run = std::make_unique<Run>();
    run->items.reserve(taken.batch.size());
  } catch (const std::bad_alloc&) {
    mailbox_.PostOutOfMemory(std::move(taken.batch));
    return true;
  }
  while (Item* item = taken.batch.Pop()) run->items.push_back(item);
  run->status = RunBatch(run->items, &run->failures);
  if (RunsWithin(kShortRun)) {
    const std::lock_guard lock(mutex_);
    thread_has_turn_ = false;
    run->hands_back = this;
  }
  mailbox_.PostRun(std::move(run));
  return true;
}

}  // namespace mindserve::pipeline
