#include "gateway/reflection_service.h"

#include <string>
#include <utility>

#include "base/utf8.h"
#include "gateway/admit.h"
#include "wire/reflection.h"

namespace mindserve::gateway {
namespace {

using Kind = wire::ReflectionRequest::Kind;

// Of one stream, whose connection has `bytes`.
struct Unsent {
  size_t answers = 0;
  const std::shared_ptr<size_t> bytes;
};

// An answer that is lent to the call, so that its end tells that it was sent, or the call is gone.
class Answer final : public ReplyLender {
 public:
  // `place` has room for it, and is counted until it is gone.
  Answer(std::string text, BytesTicket place, std::shared_ptr<Unsent> unsent)
      : text_(std::move(text)), place_(std::move(place)), unsent_(std::move(unsent)) {
    ++unsent_->answers;
    *unsent_->bytes += Cost(text_);
  }
  ~Answer() override {
    --unsent_->answers;
    *unsent_->bytes -= Cost(text_);
  }
  // What it takes while it waits: with what a call keeps of it besides.
  static size_t Cost(const std::string& text) { return text.size() + kOverhead; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(text_.data(), text_.size())); }
  void Return(std::span<const std::byte>) override {}

 private:
  static constexpr size_t kOverhead = 256;

  const std::string text_;
  const BytesTicket place_;
  const std::shared_ptr<Unsent> unsent_;  // with the stream and its other answers
};

std::string Respond(const Served& served, const wire::ReflectionRequest& request) {
  const wire::DescriptorIndex& index = served.descriptors;
  const std::string name(CutUtf8(request.text, 256));
  const auto files = [&](std::optional<wire::DescriptorIndex::File> file, const std::string& missing) {
    return file ? wire::WriteFiles(request, index.WithImports(*file))
                : wire::WriteReflectionError(request, {Code::kNotFound, "no " + missing + " is known"});
  };
  switch (request.kind) {
    case Kind::kFileByFilename:
      return files(index.FileNamed(request.text), "file '" + name + "'");
    case Kind::kFileContainingSymbol:
      return files(index.FileContaining(request.text), "symbol '" + name + "'");
    case Kind::kFileContainingExtension:
      return files(index.FileExtending(request.text, request.extension_number),
                   "extension " + std::to_string(request.extension_number) + " of a message '" + name + "'");
    case Kind::kAllExtensionNumbersOfType: {
      const auto numbers = index.ExtensionNumbers(request.text);
      return numbers ? wire::WriteExtensionNumbers(request, *numbers)
                     : wire::WriteReflectionError(request, {Code::kNotFound, "no message '" + name + "' is known"});
    }
    case Kind::kListServices:
      return wire::WriteServices(request, served.names);
    case Kind::kNone:
      break;
  }
  return wire::WriteReflectionError(
      request, {Code::kInvalidArgument, "the request asks nothing: none of message_request is set"});
}

class ReflectionCall final : public CallHandler {
 public:
  ReflectionCall(const std::shared_ptr<const Served>& served, RequestMemory& memory, std::shared_ptr<size_t> unsent,
                 Call& call)
      : served_(served), memory_(memory), call_(call), unsent_(new Unsent{.bytes = std::move(unsent)}) {
    call_.DropMetadata();
  }

  void OnMessage(Message message) override {
    if (unsent_->answers >= kMostUnsentAnswers || *unsent_->bytes >= kMostUnsentAnswerBytes) {
      return call_.Finish({Code::kResourceExhausted, "the client asks on without reading the answers, of which " +
                                                         std::to_string(unsent_->answers) + " wait: at most " +
                                                         std::to_string(kMostUnsentAnswers) +
                                                         ", or 16 MiB of a connection, may"});
    }
    const auto request = wire::ReadReflectionRequest(message.bytes());
    if (!request.ok()) return call_.Finish(request.status());
    std::string text = Respond(*served_, *request);
    BytesTicket place(memory_.admission());
    const size_t cost = Answer::Cost(text);
    if (!place.GrowTo(cost)) return call_.Finish(memory_.OverLimit(cost), TryLater());
    const auto answer = std::make_shared<Answer>(std::move(text), std::move(place), unsent_);
    Reply reply;
    reply.emplace_back(answer->bytes(), answer);
    call_.Send(std::move(reply));
  }
  void OnHalfClose() override { call_.Finish(Status::Ok()); }
  void OnCancel() override {}

 private:
  const std::shared_ptr<const Served>& served_;
  RequestMemory& memory_;
  Call& call_;
  const std::shared_ptr<Unsent> unsent_;  // with the answers
};

}  // namespace

std::unique_ptr<CallHandler> ReflectionService::Start(Call& call) {
  return std::make_unique<ReflectionCall>(served_, memory_, UnsentOf(call.client()), call);
}

std::shared_ptr<size_t> ReflectionService::UnsentOf(uint64_t client) {
  std::weak_ptr<size_t>& known = (*unsent_)[client];
  if (auto bytes = known.lock()) return bytes;
  const auto forget = [all = unsent_, client](const size_t* bytes) {
    delete bytes;
    all->erase(client);
  };
  const std::shared_ptr<size_t> bytes(new size_t(0), forget);
  known = bytes;
  return bytes;
}

}  // namespace mindserve::gateway
