// One call of a user's service: its way to a worker, again to another when that one dies, and messages both ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "gateway/call.h"
#include "gateway/user_service.h"
#include "gateway/worker_calls.h"

namespace mindserve::gateway {

class UserCall final : public CallHandler, private WorkerCallListener {
 public:
  UserCall(UserService& service, Call& call, std::string request_id, std::optional<UserService::Goal> goal)
      : service_(service),
        shared_(service.shared_),
        call_(call),
        request_id_(std::move(request_id)),
        goal_(std::move(goal)) {
    ++service_.calls_;
  }
  ~UserCall() override {
    GiveUp();
    --service_.calls_;
  }

  // The headers are there. One whose client streams goes to its worker at once.
  void Begin();

  void OnMessage(Message message) override;
  void OnHalfClose() override;
  void OnCancel() override { GiveUp(); }

 private:
  void OnWorkerReply(uint32_t tag, ReplyPart payload, uint8_t flags) override;
  void OnWorkerEnd(uint32_t tag, Status status) override;
  void OnWorkerLost(uint32_t tag, const LostCall& lost) override;
  void OnAnswerWaits() override { call_.AnswerWaits(); }
  void OnWorkerInitial(std::span<const std::byte> bytes, bool gzip) override;
  void OnWorkerTrailing(Code code, std::span<const std::byte> bytes) override;
  void OnMessageReleased() override { call_.MessageTaken(); }
  void OnMessageWanted(uint32_t taken) override { call_.MessageWanted(taken); }

  // Routes, admits, and sends it to a worker. False: it is finished.
  bool Open();
  void Send(const Router::Target& target);
  // INVALID_ARGUMENT for metadata that no handler could be shown.
  Status WriteHead(std::string* head);
  // Whether the client is told of the variation before the first message, too.
  bool NamesVariationFirst() const;
  void SendInitial(Metadata initial);
  // False: it could not be, and the call is finished.
  bool SendCompressed(ReplyPart message);
  void Fail(Status status, Metadata trailing = {});
  // The worker has ended the call.
  void Complete(Status status, Metadata trailing = {});
  void GiveUp();
  void LeaveWorker();
  std::string Described() const;

  UserService& service_;
  UserCalls& shared_;
  Call& call_;
  const std::string request_id_;
  std::string model_;
  std::optional<UserService::Goal> goal_;  // from when it is opened, at the latest
  std::optional<Message> message_;         // of a client that sends one, until the call is opened
  std::shared_ptr<Request> request_;       // from then on until the call is answered
  std::shared_ptr<WorkerEnd> worker_;      // that has it
  uint64_t number_ = 0;                    // there
  bool idempotent_ = false;
  bool encodes_ = false;  // the client was told that messages may be compressed
  bool replied_ = false;  // something was sent to the client
  size_t messages_ = 0;   // of the answer
  size_t sends_ = 0;
  size_t deaths_ = 0;  // of workers where its handler had begun
};

}  // namespace mindserve::gateway
