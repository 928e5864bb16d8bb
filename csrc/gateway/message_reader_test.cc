#include "gateway/message_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gateway/test_client.h"
#include "link/lane.h"

namespace mindserve::gateway {
namespace {

constexpr size_t kMax = 1 << 20;

class MessageReaderTest : public testing::Test {
 protected:
  MessageReaderTest() {
    auto port = link::GatewayPort::Create(64 << 20);
    EXPECT_TRUE(port.ok());
    port_ = *std::move(port);
    memory_ = std::make_unique<RequestMemory>(port_->arena(), admission_);
  }
  ~MessageReaderTest() override {
    EXPECT_EQ(admission_.bytes(), 0u);
    EXPECT_EQ(port_->arena().slabs(), 0u);
  }

  // Feeds `body` in pieces of `step`; the messages that came out, and the error in the end.
  std::vector<std::string> Read(const std::string& body, Encoding encoding, size_t step) {
    PartialBytes partial;
    MessageReader reader(*memory_, partial, kMax, encoding, nullptr);
    std::vector<std::string> messages;
    error_ = {};
    for (size_t at = 0; at < body.size(); at += step) {
      auto data = std::as_bytes(std::span<const char>(body)).subspan(at, std::min(step, body.size() - at));
      while (!data.empty()) {
        std::optional<Message> message;
        if (reader.Feed(&data, &message)) {
          const auto bytes = message->bytes();
          messages.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        } else if (!reader.error().status.ok()) {
          error_ = reader.error();
          return messages;
        }
      }
    }
    within_ = reader.within();
    return messages;
  }

  Admission admission_;
  std::unique_ptr<link::GatewayPort> port_;
  std::unique_ptr<RequestMemory> memory_;
  MessageReader::Error error_;
  bool within_ = false;
};

TEST_F(MessageReaderTest, LargeMessagesArePlacedByWhatTheirFirstBytesTell) {
  // The first byte says where.
  const AlignedAt aligned_at = [](std::span<const std::byte> begin) -> std::optional<size_t> {
    return begin.empty() ? std::nullopt : std::optional(static_cast<size_t>(begin.front()));
  };
  for (const size_t size : {size_t{64 * 1024}, size_t{100'000}}) {
    for (const char at : {'\0', '\1', '7', '\x40', '\x7f'}) {
      std::string body(size, 'b');
      body.front() = at;
      const std::string framed = Framed(body);
      PartialBytes partial;
      MessageReader reader(*memory_, partial, kMax, Encoding::kNone, aligned_at);
      std::optional<Message> message;
      for (size_t begin = 0; begin < framed.size(); begin += 1000) {
        auto data = std::as_bytes(std::span<const char>(framed))
                        .subspan(begin)
                        .first(std::min<size_t>(1000, framed.size() - begin));
        while (!data.empty()) reader.Feed(&data, &message);
      }
      ASSERT_TRUE(message);
      ASSERT_EQ(message->bytes().size(), size);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(message->bytes().data() + at) % 64, 0u);
      EXPECT_EQ(std::memcmp(message->bytes().data(), body.data(), size), 0);
      EXPECT_EQ(admission_.bytes(), size);
      EXPECT_EQ(port_->arena().slabs(), 1u);
    }
  }
}

TEST_F(MessageReaderTest, MessagesHoweverTheyAreCut) {
  const std::vector<std::string> expected = {"one", "", std::string(1000, 't'), "three"};
  std::string body;
  std::string packed;
  std::string deflated;
  for (const std::string& message : expected) {
    body += Framed(message);
    packed += Framed(Gzip(message), true);
    deflated += Framed(Deflate(message), true);
  }
  for (size_t step : {1, 2, 3, 4, 5, 6, 7, 100, 1 << 20}) {
    EXPECT_EQ(Read(body, Encoding::kNone, step), expected) << step;
    EXPECT_FALSE(within_);
    EXPECT_EQ(Read(packed, Encoding::kGzip, step), expected) << step;
    EXPECT_FALSE(within_);
    EXPECT_EQ(Read(deflated, Encoding::kDeflate, step), expected) << step;
    EXPECT_FALSE(within_);
  }
}

TEST_F(MessageReaderTest, StoppingAnywhereIsWithinAMessageOrNot) {
  const std::string body = Framed("message");
  for (size_t size = 0; size <= body.size(); ++size) {
    Read(body.substr(0, size), Encoding::kNone, 3);
    EXPECT_EQ(within_, size != 0 && size != body.size()) << size;
    EXPECT_TRUE(error_.status.ok());
  }
}

TEST_F(MessageReaderTest, WhatIsWrongIsSaid) {
  const auto code = [&](const std::string& body, Encoding encoding) {
    EXPECT_TRUE(Read(body, encoding, 10).empty());
    EXPECT_NE(error_.limit, Refusal::kMaxEnqueuedBytes);
    return error_.status.code();
  };
  EXPECT_EQ(code("\x02" + Framed("x").substr(1), Encoding::kNone), Code::kInternal);
  EXPECT_EQ(code(Framed("x", true), Encoding::kNone), Code::kInternal);
  EXPECT_EQ(code(Framed("x", true), Encoding::kIdentity), Code::kInternal);
  EXPECT_EQ(code(Framed("this is no gzip at all", true), Encoding::kGzip), Code::kInternal);
  EXPECT_EQ(code(Framed(Gzip("x") + "more", true), Encoding::kGzip), Code::kInternal);
  EXPECT_EQ(code(Framed(Gzip("x"), true), Encoding::kDeflate), Code::kInternal);
  EXPECT_EQ(code(Framed(Deflate("x"), true), Encoding::kGzip), Code::kInternal);
  EXPECT_EQ(code(Framed(Deflate("x") + "more", true), Encoding::kDeflate), Code::kInternal);
  EXPECT_EQ(code(Framed(std::string(kMax + 1, 'x')).substr(0, 5), Encoding::kNone), Code::kResourceExhausted);
  EXPECT_EQ(code(Framed(Gzip(std::string(kMax + 1, 'x')), true), Encoding::kGzip), Code::kResourceExhausted);
  EXPECT_EQ(code(Framed(Deflate(std::string(kMax + 1, 'x')), true), Encoding::kDeflate), Code::kResourceExhausted);
}

TEST_F(MessageReaderTest, ACutOrChangedMessageIsAnErrorOrItWasNotReached) {
  const std::string text = "a message that is worth packing, packing, packing";
  for (const auto& [encoding, packed] :
       {std::pair(Encoding::kGzip, Gzip(text)), std::pair(Encoding::kDeflate, Deflate(text))}) {
    for (size_t size = 0; size < packed.size(); ++size) {
      EXPECT_TRUE(Read(Framed(packed.substr(0, size), true), encoding, 7).empty()) << size;
      EXPECT_EQ(error_.status.code(), Code::kInternal) << size;
    }
    for (size_t bit = 0; bit < packed.size() * 8; ++bit) {
      std::string flipped = packed;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
      Read(Framed(flipped, true), encoding, 7);  // whatever comes of it
    }
  }
}

TEST_F(MessageReaderTest, TheLimitItselfIsAllowed) {
  const std::string most(kMax, 'm');
  EXPECT_EQ(Read(Framed(most), Encoding::kNone, 4096), std::vector<std::string>{most});
  EXPECT_EQ(Read(Framed(Gzip(most), true), Encoding::kGzip, 4096), std::vector<std::string>{most});
}

TEST_F(MessageReaderTest, MemoryThatIsTakenMayBeFreeLater) {
  admission_.SetMaxBytes(10);
  Read(Framed("eleven byte"), Encoding::kNone, 100);
  EXPECT_EQ(error_.status.code(), Code::kResourceExhausted);
  EXPECT_NE(error_.status.message().find("max_enqueued_bytes"), std::string::npos);
  EXPECT_EQ(error_.limit, Refusal::kMaxEnqueuedBytes);
  Read(Framed(Gzip("eleven byte"), true), Encoding::kGzip, 100);
  EXPECT_EQ(error_.limit, Refusal::kMaxEnqueuedBytes);
  EXPECT_EQ(Read(Framed("ten bytes!"), Encoding::kNone, 100).size(), 1u);
}

TEST_F(MessageReaderTest, AnArenaThatIsFullIsSaidSo) {
  std::vector<Message> kept;
  for (Result<Message> message = memory_->Allocate(kMax); message.ok(); message = memory_->Allocate(kMax)) {
    kept.push_back(*std::move(message));
    kept.back().StopCounting();
    ASSERT_LT(kept.size(), 100u);
  }
  EXPECT_EQ(admission_.bytes(), 0u);
  Read(Framed(std::string(kMax, 'x')), Encoding::kNone, 4096);
  EXPECT_EQ(error_.status.code(), Code::kResourceExhausted);
  EXPECT_NE(error_.status.message().find("functions that keep the inputs"), std::string::npos);
  EXPECT_EQ(error_.limit, Refusal::kMaxEnqueuedBytes);
  kept.clear();
  EXPECT_EQ(admission_.bytes(), 0u);
  EXPECT_EQ(Read(Framed(std::string(kMax, 'x')), Encoding::kNone, 4096).size(), 1u);
}

// A reader of a message on a connection.
struct Begun {
  Begun(RequestMemory& memory, PartialBytes& partial, size_t announces)
      : body(announces, 'x'), reader(memory, partial, kMax, Encoding::kNone, nullptr) {
    for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i % 251);
    framed = Framed(body);
  }
  // So many bytes of it have come. What became of it: "", "whole", or an error.
  std::string Come(size_t bytes) {
    const size_t end = std::min(framed.size(), 5 + bytes);
    auto data = std::as_bytes(std::span<const char>(framed)).subspan(came, end - came);
    came = end;
    while (!data.empty()) {
      if (reader.Feed(&data, &message)) return "whole";
      if (!reader.error().status.ok()) return reader.error().status.message();
    }
    return "";
  }
  bool right() const {
    return message && std::ranges::equal(message->bytes(), std::as_bytes(std::span<const char>(body)));
  }

  std::string body;
  std::string framed;
  size_t came = 0;
  MessageReader reader;
  std::optional<Message> message;
};

TEST_F(MessageReaderTest, WhatAConnectionHasBegunIsAShareOfAll) {
  admission_.SetMaxBytes(400);
  PartialBytes partial;
  {
    Begun one(*memory_, partial, 60);
    EXPECT_EQ(one.Come(0), "");
    EXPECT_EQ(admission_.bytes(), 60u);
    Begun two(*memory_, partial, 50);
    EXPECT_EQ(two.Come(40), "") << "beyond a quarter it counts as it comes";
    EXPECT_EQ(admission_.bytes(), 100u);
    Begun three(*memory_, partial, 100);
    EXPECT_EQ(three.Come(60), "");
    EXPECT_EQ(three.Come(61),
              "messages that this connection has begun take more than a quarter of max_enqueued_bytes 400");
    EXPECT_EQ(three.reader.error().limit, Refusal::kMaxEnqueuedBytes);
    Begun four(*memory_, partial, 40);
    EXPECT_EQ(four.Come(0), "");
    EXPECT_EQ(partial.gathered, 40u);
    EXPECT_EQ(admission_.bytes(), 140u);
  }
  EXPECT_EQ(partial.gathered, 0u);
  Begun alone(*memory_, partial, 390);
  EXPECT_EQ(alone.Come(389), "") << "one message may be larger than the share";
  EXPECT_EQ(alone.Come(390), "whole");
}

TEST_F(MessageReaderTest, WhatUnpacksCountsWhileAMessageComes) {
  admission_.SetMaxBytes(8 * kInflaterBytes);
  PartialBytes partial;
  const std::string packed = Framed(Gzip("text"), true);
  const auto feed = [](MessageReader& reader, std::string_view text) {
    auto data = std::as_bytes(std::span(text));
    std::optional<Message> message;
    return reader.Feed(&data, &message);
  };
  MessageReader one(*memory_, partial, kMax, Encoding::kGzip, nullptr);
  MessageReader two(*memory_, partial, kMax, Encoding::kGzip, nullptr);
  MessageReader three(*memory_, partial, kMax, Encoding::kGzip, nullptr);
  for (MessageReader* reader : {&one, &two, &three}) EXPECT_FALSE(feed(*reader, packed.substr(0, 6)));
  EXPECT_EQ(admission_.bytes(), 2 * kInflaterBytes);
  EXPECT_EQ(three.error().limit, Refusal::kMaxEnqueuedBytes) << "a connection has a quarter";
  EXPECT_TRUE(feed(one, packed.substr(6)));
  EXPECT_EQ(admission_.bytes(), kInflaterBytes);
  EXPECT_TRUE(feed(one, packed)) << "one that comes whole needs it for no time";
  EXPECT_TRUE(feed(two, packed.substr(6)));
}

// Each on a connection of its own.
TEST_F(MessageReaderTest, WhatIsOnlyAnnouncedCountsUpToAQuarterOfAll) {
  admission_.SetMaxBytes(1'000'000);
  TimePoint now = TimePoint(std::chrono::hours(1));
  memory_->SetTime(&now);
  std::vector<std::unique_ptr<PartialBytes>> connections;
  std::vector<std::unique_ptr<Begun>> all;
  const auto begin = [&](size_t announces) -> Begun& {
    connections.push_back(std::make_unique<PartialBytes>());
    all.push_back(std::make_unique<Begun>(*memory_, *connections.back(), announces));
    return *all.back();
  };
  // One that is larger than that has no place from the beginning, though it is alone.
  EXPECT_EQ(begin(900'000).Come(1), "");
  EXPECT_EQ(admission_.bytes(), 1u);
  all.clear();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(begin(100'000).Come(1), "");
  EXPECT_EQ(admission_.bytes(), 200'098u);
  EXPECT_EQ(begin(700'000).Come(700'000), "whole") << "at once, it claims nothing";
  all.pop_back();
  Begun& large = begin(450'000);
  for (size_t came = 1'000; came < 450'000; came += 1'000) ASSERT_EQ(large.Come(came), "");
  EXPECT_EQ(admission_.bytes(), 200'098u + 449'000u);
  EXPECT_EQ(large.Come(450'000), "whole");
  EXPECT_TRUE(large.right());
  EXPECT_EQ(admission_.bytes(), 200'098u + 450'000u);
  EXPECT_FALSE(admission_.BytesLacked(now));
  all.pop_back();
  EXPECT_EQ(begin(600'000).Come(580'000),
            "messages that have begun and are not whole take three quarters of max_enqueued_bytes 1000000");
  EXPECT_TRUE(admission_.BytesLacked(now));
  EXPECT_EQ(begin(790'000).Come(790'000), "whole");
  // Those that were announced first have their places.
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(all[i]->Come(100'000), "whole");
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(all[i]->right());
  all.clear();
  memory_->SetTime(nullptr);
}

TEST_F(MessageReaderTest, WhatWasGatheredIsTheMessage) {
  admission_.SetMaxBytes(4 * kMax);
  PartialBytes others;
  Begun claims(*memory_, others, kMax);
  EXPECT_EQ(claims.Come(1), "");
  for (const size_t size : {2, 3, 100, 65'535, 65'536, 300'000, 1'000'000}) {
    for (const size_t step : {1, 7, 1'000, 100'000}) {
      if (size / step > 10'000 || step >= size) continue;
      PartialBytes own;
      Begun begun(*memory_, own, size);
      for (size_t came = step; came < size; came += step) ASSERT_EQ(begun.Come(came), "");
      EXPECT_EQ(begun.Come(size), "whole");
      EXPECT_TRUE(begun.right()) << size << " in steps of " << step;
      EXPECT_EQ(admission_.bytes(), kMax + size);
    }
  }
}

}  // namespace
}  // namespace mindserve::gateway
