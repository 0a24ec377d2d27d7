// Several shards that read one ingress ring: the publisher uses no byte again that one of them has still to read, whatever
// shards come and go meanwhile.
//
// What shards do is played as docs/decisions/0009-shards.md has it; the publisher's minimum is that of lib/ring.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "lib/ring/consumed.hpp"
#include "lib/ring/spsc_ring.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

using ring::RingReader;
using ring::RingWriter;

constexpr std::uint32_t lead_only = 1;
constexpr std::uint32_t with_follower = 3;

// What is wrong with the publisher's look, or with how the lead changes what shards there are.
enum class Mistake {
  none,
  mask_before_the_lead,  // the publisher loads the mask before shard 0's word
  mask_not_acquired,
  mask_after_going_on,  // the lead reads on before it sets the bit
  word_not_set,         // the follower begins with the word that it left behind
  word_not_released,
  mask_not_released,
};

/// What the lead does, one after the other.
enum class Act { read, activate, deactivate };
using Acts = std::vector<Act>;

constexpr std::uint64_t record_bytes = 64;

// A ring of one record: each is written over the one before. The lead reads them all; the follower those between its
// activation, where the lead is then, and its deactivation, wherever it is then: ahead of the lead or behind it.
class ReuseScenario final : public Scenario {
 public:
  ReuseScenario(Acts acts, Mistake mistake, std::uint64_t start = 0)
      : acts_(std::move(acts)),
        mistake_(mistake),
        start_(start),
        reads_(static_cast<std::uint64_t>(std::ranges::count(acts_, Act::read))) {
    name(&tail_, "tail");
    name(&cursor_.shards[0].consumed, "lead's consumed");
    name(&cursor_.shards[1].consumed, "follower's consumed");
    name(&shards_, "shards");
    name(&gate_, "gate");
    name(&wanted_, "wanted");
    name(data_.data(), "ring");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"publisher", "lead", "follower"}; }

  void reset() override {
    for (shm::Word64* word : {&tail_, &cursor_.shards[0].consumed, &cursor_.shards[1].consumed}) {
      word->store(start_, std::memory_order_relaxed);
    }
    shards_.store(lead_only, std::memory_order_relaxed);
    gate_.store(0, std::memory_order_relaxed);
    wanted_.store(0, std::memory_order_relaxed);
    may_run_ = rests_ = false;
    writer_ = RingWriter(data_.data(), ring_bytes, &tail_, start_, start_);
    write(1);
  }

  void run(std::size_t role) override {
    if (role == 0) return publish();
    role == 1 ? lead() : follow();
  }

 private:
  static constexpr std::uint64_t ring_bytes = record_bytes;
  static constexpr std::size_t payload_words = (record_bytes - sizeof(shm::RecordHeader)) / 8;

  // As PublisherEndpoint::claim_slowly and publish_wait do. The first record is there already; the last is one that nobody
  // has to read.
  void publish() {
    for (std::uint64_t sequence = 2; sequence <= reads_ + 1; ++sequence) {
      while (!writer_.fits(record_bytes)) {
        const std::uint64_t head = consumed();
        if (head == writer_.head()) pause();
        writer_.set_head(head);
      }
      write(sequence);
    }
  }

  void write(std::uint64_t sequence) {
    struct {
      shm::RecordHeader header{};
      std::array<std::uint64_t, payload_words> payload{};
    } record;
    static_assert(sizeof record == record_bytes);
    record.header.bytes = record_bytes;
    record.header.kind = static_cast<std::uint16_t>(shm::RecordKind::event);
    record.header.sequence = sequence;
    record.payload.fill(sequence);
    shm::shared_copy(writer_.claim(record_bytes), &record, sizeof record);
    writer_.advance(record_bytes);
    writer_.commit();
  }

  [[nodiscard]] std::uint64_t consumed() const {
    if (mistake_ != Mistake::mask_before_the_lead && mistake_ != Mistake::mask_not_acquired) {
      return ring::consumed_by_all(cursor_, shards_);
    }
    std::uint32_t mask = 0;
    if (mistake_ == Mistake::mask_before_the_lead) mask = shards_.load(std::memory_order_acquire);
    const std::uint64_t first = cursor_.shards[0].consumed.load(std::memory_order_acquire);
    if (mistake_ == Mistake::mask_not_acquired) mask = shards_.load(std::memory_order_relaxed);
    if (mask == lead_only) return first;
    const std::uint64_t second = cursor_.shards[1].consumed.load(std::memory_order_acquire);
    return static_cast<std::int64_t>(second - first) < 0 ? second : first;
  }

  // As Shards will, with the follower held from deactivate() to activate().
  void lead() {
    RingReader reader(data_.data(), ring_bytes, &tail_, start_);
    bool set_late = false;
    for (const Act act : acts_) {
      if (act == Act::activate) {
        set_late = activate(reader.position());
      } else if (act == Act::deactivate) {
        deactivate();
      } else {
        while (!read_one(reader, 0)) pause();
        if (std::exchange(set_late, false)) shards_.store(with_follower, std::memory_order_release);
      }
    }
  }

  // The follower is at rest. True: the mask is to be set later.
  bool activate(std::uint64_t position) {
    beginning_ = position;
    if (mistake_ != Mistake::word_not_set) {
      // Released: a publisher may see it while it still has the mask of the follower's earlier life.
      const bool relaxed = mistake_ == Mistake::word_not_released;
      cursor_.shards[1].consumed.store(position, relaxed ? std::memory_order_relaxed : std::memory_order_release);
    }
    const bool late = mistake_ == Mistake::mask_after_going_on;
    if (!late) shards_.store(with_follower, std::memory_order_release);
    wanted_.store(0, std::memory_order_relaxed);
    pass_gate(may_run_);
    return late;
  }

  void deactivate() {
    wanted_.store(1, std::memory_order_relaxed);
    wait_at_gate(rests_);
    // Released: bytes that the follower read last may be used again as soon as it is not in the mask any more, as the lead's
    // word may be ahead of them for long.
    const bool relaxed = mistake_ == Mistake::mask_not_released;
    shards_.store(lead_only, relaxed ? std::memory_order_relaxed : std::memory_order_release);
  }

  // Between two records it looks whether it has to stop, which it may see late. One that stays reads to the end.
  void follow() {
    for (const Act act : acts_) {
      if (act != Act::activate) continue;
      wait_at_gate(may_run_);
      RingReader reader(data_.data(), ring_bytes, &tail_, beginning_);
      while (reader.position() != start_ + reads_ * record_bytes && wanted_.load(std::memory_order_relaxed) == 0) {
        if (!read_one(reader, 1)) pause();
      }
      pass_gate(rests_);
    }
  }

  // The mutex of a shard: who comes through has what the other did before.
  void pass_gate(bool& open) {
    gate_.fetch_add(1, std::memory_order_release);
    open = true;
  }
  void wait_at_gate(bool& open) {
    if (!std::exchange(open, false)) sleep(open);
    gate_.fetch_add(1, std::memory_order_acquire);
  }

  // As Exchange::commit_ingress does, once per record.
  bool read_one(RingReader& reader, std::size_t shard) {
    const std::byte* record = reader.peek();
    if (record == nullptr) return false;
    shm::Memory::reading(record, record_bytes);
    const auto* header = reinterpret_cast<const shm::RecordHeader*>(record);
    const std::uint64_t sequence = (reader.position() - start_) / record_bytes + 1;
    std::array<std::uint64_t, payload_words> payload;
    std::memcpy(payload.data(), record + sizeof *header, sizeof payload);
    expect(header->sequence == sequence && payload[0] == sequence, "a record is gone before a shard has read it");
    reader.advance(record_bytes);
    cursor_.shards[shard].consumed.store(reader.position(), std::memory_order_release);
    return true;
  }

  Acts acts_;
  Mistake mistake_;
  std::uint64_t start_;  // position
  std::uint64_t reads_;  // of the lead
  shm::IngressCursor cursor_{};
  alignas(64) shm::Word64 tail_;
  alignas(64) shm::Word32 shards_;
  alignas(64) shm::Word64 gate_;
  alignas(64) shm::Word32 wanted_;
  alignas(64) std::array<std::byte, ring_bytes> data_;
  RingWriter writer_;
  // Behind the gate.
  bool may_run_ = false;
  bool rests_ = false;
  std::uint64_t beginning_ = 0;
};

const Acts comes{Act::activate, Act::read};
const Acts goes{Act::activate, Act::read, Act::deactivate};
// Of the follower's first life there is a word that is too high, or one that is too low, and bytes that it read then.
const Acts was_ahead{Act::activate, Act::deactivate, Act::activate, Act::read};
const Acts was_behind{Act::activate, Act::read, Act::deactivate, Act::activate};
const Acts comes_and_goes{Act::read, Act::activate, Act::read, Act::deactivate, Act::read};

constexpr Bounds wide{.preemptions = 2, .old_values = 2};
constexpr Bounds narrow{.preemptions = 1, .old_values = 2};  // for those that are longer

void check(const char* title, const Acts& acts, const Bounds& bounds, std::uint64_t start = 0) {
  ReuseScenario scenario(acts, Mistake::none, start);
  check_all(title, scenario, bounds);
}

TEST_CASE("shards: one comes") {
  check("shards, one comes", comes, wide);
  check("shards, one comes where positions pass 2^64", comes, narrow, std::uint64_t{0} - record_bytes);
}
TEST_CASE("shards: one goes") { check("shards, one goes", goes, wide); }
TEST_CASE("shards: one comes again") {
  check("shards, one that was ahead comes again", was_ahead, narrow);
  check("shards, one that was behind comes again", was_behind, {.preemptions = 2, .old_values = 1});
}
TEST_CASE("shards: one comes and goes") {
  check("shards, one comes and goes", comes_and_goes, {.preemptions = 1, .old_values = 0});
}

TEST_CASE("shards canaries") {
  struct Wrong {
    const char* title;
    Mistake mistake;
    const Acts& acts;
    const char* why;
    const Bounds& bounds;
  };
  const char* const gone = "gone before a shard has read it";
  const char* const race = "data race";
  for (const Wrong& wrong :
       {Wrong{"shards, mask before the lead's word", Mistake::mask_before_the_lead, comes, gone, wide},
        {"shards, mask after going on", Mistake::mask_after_going_on, comes, gone, wide},
        {"shards, mask not acquired", Mistake::mask_not_acquired, goes, race, wide},
        {"shards, mask not released", Mistake::mask_not_released, goes, race, wide},
        {"shards, word not released", Mistake::word_not_released, was_behind, race, narrow},
        {"shards, word not set, and too high", Mistake::word_not_set, was_ahead, gone, narrow},
        {"shards, word not set, and too low", Mistake::word_not_set, was_behind, "waits for what never", narrow}}) {
    ReuseScenario scenario(wrong.acts, wrong.mistake);
    check_caught(wrong.title, scenario, wrong.why, wrong.bounds);
  }
}

}  // namespace
}  // namespace ackring::test::interleave
