#include "gateway/reflection_service.h"

#include <string>
#include <utility>

#include "base/utf8.h"
#include "wire/reflection.h"

namespace mindserve::gateway {
namespace {

using Kind = wire::ReflectionRequest::Kind;

// Of one stream.
struct Unsent {
  size_t answers = 0;
  size_t bytes = 0;
};

// An answer that is lent to the call, so that its end tells that it was sent, or the call is gone.
class Answer final : public ReplyLender {
 public:
  Answer(std::string text, std::shared_ptr<Unsent> unsent) : text_(std::move(text)), unsent_(std::move(unsent)) {
    ++unsent_->answers;
    unsent_->bytes += text_.size();
  }
  ~Answer() override {
    --unsent_->answers;
    unsent_->bytes -= text_.size();
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(text_.data(), text_.size())); }
  void Return(std::span<const std::byte>) override {}

 private:
  const std::string text_;
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
  ReflectionCall(const std::shared_ptr<const Served>& served, Call& call) : served_(served), call_(call) {}

  void OnMessage(Message message) override {
    if (unsent_->answers >= kMostUnsentAnswers || unsent_->bytes >= kMostUnsentAnswerBytes) {
      return call_.Finish({Code::kResourceExhausted, "the client asks on without reading the answers, of which " +
                                                         std::to_string(unsent_->answers) + " wait: at most " +
                                                         std::to_string(kMostUnsentAnswers) + ", or 16 MiB, may"});
    }
    const auto request = wire::ReadReflectionRequest(message.bytes());
    if (!request.ok()) return call_.Finish(request.status());
    const auto answer = std::make_shared<Answer>(Respond(*served_, *request), unsent_);
    Reply reply;
    reply.emplace_back(answer->bytes(), answer);
    call_.Send(std::move(reply));
  }
  void OnHalfClose() override { call_.Finish(Status::Ok()); }
  void OnCancel() override {}

 private:
  const std::shared_ptr<const Served>& served_;
  Call& call_;
  const std::shared_ptr<Unsent> unsent_ = std::make_shared<Unsent>();  // with the answers
};

}  // namespace

std::unique_ptr<CallHandler> ReflectionService::Start(Call& call) {
  return std::make_unique<ReflectionCall>(served_, call);
}

}  // namespace mindserve::gateway
