// Reasons of rejects: the exchange reads a reason whole or not at all, while its slot is used again and by two threads.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <string>

#include "lib/ring/ack_table.hpp"
#include "lib/ring/reject_reason.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

enum class Mistake { none, written_in_place };

constexpr std::array<const char*, 3> texts{"the first reason, which is long",
                                           "a second reason, longer than the first one", "third"};

// Rejects use slot 0 again and again, as every 64th one does.
class ReasonScenario final : public Scenario {
 public:
  /// `writers` threads reject `rejects` entries each.
  ReasonScenario(std::size_t writers, std::size_t rejects, Mistake mistake = Mistake::none)
      : writers_(writers), rejects_(rejects), mistake_(mistake) {
    name(&page().reasons, "reasons");
    name(&slot(), "slot");
    name(memory_.data() + shm::page_bytes, "words");
  }
  [[nodiscard]] std::vector<std::string> roles() const override {
    std::vector<std::string> result{"exchange"};
    for (std::size_t i = 0; i < writers_; ++i) result.emplace_back("member");
    return result;
  }
  void reset() override {
    std::memset(memory_.data(), 0, memory_.size());
    page().slots = slots;
    writer_ = ring::AckWriter(&page());
    reader_ = ring::AckReader(&page(), slots);
  }
  void run(std::size_t role) override {
    if (role == 0) return read();
    for (std::size_t i = 0; i < rejects_; ++i) reject((role - 1) * rejects_ + i);
  }
  void finish() override {
    const std::uint64_t last = rejects_ - 1;
    if (writers_ == 1) expect(reader_.reason(last, reader_.seen(last).delay) == texts[last], "the last reason is lost");
  }

 private:
  static constexpr std::uint64_t slots = 4;

  void reject(std::uint64_t entry) {
    if (mistake_ == Mistake::written_in_place) {
      std::array<std::uint64_t, 15> words{};
      std::memcpy(words.data(), texts[entry], std::strlen(texts[entry]));
      for (std::size_t i = 0; i < words.size(); ++i) slot().text[i].store(words[i], std::memory_order_relaxed);
      slot().entry.store(entry + 1, std::memory_order_release);
      (void)writer_.verdict(entry, ring::Verdict::reject, 1);
      return;
    }
    expect(writer_.reject(entry, texts[entry]), "a reject is refused");
    page().reasons.fetch_add(shm::reject_reasons - 1, std::memory_order_relaxed);  // as so many rejects would
  }

  // Looks at what was rejected until all is.
  void read() {
    for (std::uint64_t entry = 0; entry < writers_ * rejects_; ++entry) {
      ring::AckSeen seen = reader_.seen(entry);
      while (seen.verdict == ring::Verdict::none) {
        pause();
        seen = reader_.seen(entry);
      }
      expect(seen.verdict == ring::Verdict::reject, "a reject is settled as something else");
      if (seen.delay == 0) continue;
      const std::string reason = reader_.reason(entry, seen.delay);
      expect(reason.empty() || reason == texts[entry], "a reason is another one's, or torn");
    }
  }

  [[nodiscard]] shm::AckPage& page() { return *reinterpret_cast<shm::AckPage*>(memory_.data()); }
  [[nodiscard]] shm::RejectReason& slot() {
    return *reinterpret_cast<shm::RejectReason*>(memory_.data() + ring::reasons_offset(slots));
  }

  std::size_t writers_;
  std::size_t rejects_;
  Mistake mistake_;
  alignas(4096) std::array<std::byte, ring::ack_page_bytes(slots)> memory_{};
  ring::AckWriter writer_;
  ring::AckReader reader_;
};

TEST_CASE("reject reasons: a slot that is used again") {
  ReasonScenario scenario(1, 2);
  check_all("reasons, used again", scenario, {.preemptions = 2, .old_values = 1});
}

TEST_CASE("reject reasons: two threads and one slot") {
  ReasonScenario scenario(2, 1);
  check_all("reasons, two threads", scenario, {.preemptions = 1, .old_values = 1});
}

TEST_CASE("reject reason canaries") {
  ReasonScenario in_place(1, 2, Mistake::written_in_place);
  check_caught("reasons, written in place", in_place, "a reason is", {.preemptions = 2, .old_values = 1});
}

}  // namespace
}  // namespace ackring::test::interleave
