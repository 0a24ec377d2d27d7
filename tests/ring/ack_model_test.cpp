// The ack table against a simple model: random takes, verdicts, extensions and looks, of one member and X.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>

#include "tests/ring/ack_page.hpp"
#include "tests/ring/ring_memory.hpp"

namespace ackring::test {
namespace {

// Entries are counted from 0 here; `start` is added where the real code is asked.
class AckModel {
 public:
  AckModel(std::uint64_t slots, std::uint64_t start, std::uint64_t seed)
      : slots_(slots), start_(start), page_(slots, start), random_(seed) {}

  void step() {
    const std::uint64_t choice = below(100);
    if (choice < 30) return take();
    if (choice < 80) return decide(choice);
    if (choice < 85) return ack_through();
    settle();
  }
  void check() const {
    REQUIRE(reader_.taken() == start_ + taken_);
    REQUIRE(reader_.acked_through() == start_ + through_);
    REQUIRE(reader_.refused() == start_ + refused_);
    for (std::uint64_t entry = floor_; entry != taken_; ++entry) {
      const Expected expected = at(entry);
      const AckSeen seen = reader_.seen(start_ + entry);
      REQUIRE(seen.verdict == expected.verdict);
      REQUIRE(seen.delay == expected.delay);
      REQUIRE(seen.count == expected.count % 16);
      REQUIRE(reader_.verdict(start_ + entry) == (ring::is_final(expected.verdict) ? expected.verdict : Verdict::none));
    }
  }
  [[nodiscard]] std::uint64_t settled() const { return floor_; }

 private:
  struct Expected {
    Verdict verdict = Verdict::none;
    std::uint32_t delay = 0;
    std::uint32_t count = 0;
    std::string reason;
  };

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  [[nodiscard]] Expected at(std::uint64_t entry) const {
    const auto found = words_.find(entry);
    return found != words_.end() ? found->second : Expected{};
  }

  void take() {
    if (taken_ - floor_ == slots_) return;
    writer_.taken(start_ + ++taken_);
  }

  // Any entry that was taken, also one that is settled long ago: that verdict is refused.
  void decide(std::uint64_t choice) {
    if (taken_ == 0) return;
    const std::uint64_t back = 1 + below(2 * slots_);
    const std::uint64_t entry = taken_ - std::min(back, taken_);
    if (entry < through_) return;  // Member refuses it before it comes here
    Expected& word = words_[entry];
    const bool refuse = ring::is_final(word.verdict);
    if (choice < 45) {
      const auto duration = static_cast<std::uint32_t>(1 + below(ring::max_delay_ms));
      REQUIRE(writer_.extend(start_ + entry, duration) != refuse);
      if (refuse) return;
      word = {Verdict::extend, duration, word.count + 1, ""};
    } else if (choice < 55) {
      const std::string reason = below(3) == 0 ? "" : "reason " + std::to_string(random_());
      const bool nacks = below(2) == 0;
      REQUIRE((nacks ? writer_.nack(start_ + entry, reason) : writer_.reject(start_ + entry, reason)) != refuse);
      if (refuse) return;
      word = {nacks ? Verdict::nack_reason : Verdict::reject, reader_.seen(start_ + entry).delay, 0, reason};
      const bool nameable = start_ + entry + 2 > 1;
      REQUIRE(reader_.reason(start_ + entry, word.delay) == (nameable ? reason : ""));
    } else {
      const Verdict verdict = choice < 59   ? Verdict::nack
                              : choice < 62 ? Verdict::give_back
                              : choice < 64 ? Verdict::returned
                                            : Verdict::ack;
      const auto delay = static_cast<std::uint32_t>(below(ring::delay_default + 1));
      REQUIRE(writer_.verdict(start_ + entry, verdict, delay) != refuse);
      if (refuse) return;
      word = {verdict, delay, 0, ""};
    }
    if (word.verdict != Verdict::ack) refused_ = std::max(refused_, entry + 1);
  }

  void ack_through() {
    const std::uint64_t to = floor_ + below(taken_ - floor_ + 1);
    writer_.ack_through(start_ + to);
    through_ = std::max(through_, to);
  }

  // As X does it: in bulk where nothing below may differ, else word by word. Every entry must come out as it was meant.
  void settle() {
    const std::uint64_t through = reader_.acked_through() - start_;
    const std::uint64_t refused = reader_.refused() - start_;
    for (; floor_ != taken_; ++floor_) {
      Verdict verdict = Verdict::ack;
      if (floor_ >= through || floor_ < refused) {
        verdict = reader_.verdict(start_ + floor_);
        if (verdict == Verdict::none && floor_ < through) verdict = Verdict::ack;
      }
      const Expected expected = at(floor_);
      const bool passed = floor_ < through_ && !ring::is_final(expected.verdict);
      const Verdict meant = passed ? Verdict::ack : expected.verdict;
      REQUIRE(verdict == (ring::is_final(meant) ? meant : Verdict::none));
      if (verdict == Verdict::none) break;
    }
  }

  std::uint64_t slots_;
  std::uint64_t start_;
  Page page_;
  AckWriter writer_ = page_.writer();
  AckReader reader_ = page_.reader();
  std::mt19937_64 random_;
  std::map<std::uint64_t, Expected> words_;
  std::uint64_t taken_ = 0;
  std::uint64_t through_ = 0;
  std::uint64_t refused_ = 0;
  std::uint64_t floor_ = 0;
};

TEST_CASE("random verdicts and extensions settle as they were meant") {
  const std::uint64_t seed = test_seed("ack model");
  for (const std::uint64_t slots : {1, 4, 32}) {
    for (const std::uint64_t start : entries_near_wraps(slots)) {
      for (std::uint64_t run = 0; run < 4; ++run) {
        CAPTURE(slots);
        CAPTURE(start);
        AckModel model(slots, start, mix(seed + run * 1000 + slots));
        for (int i = 0; i < 2000; ++i) {
          model.step();
          model.check();
        }
        CHECK(model.settled() > 50);
      }
    }
  }
}

}  // namespace
}  // namespace ackring::test
