#include "tests/interleave/ack_scenario.hpp"

#include <algorithm>
#include <utility>

namespace ackring::test::interleave {

AckScenario::AckScenario(Plan plan) : plan_(std::move(plan)), end_(plan_.start + plan_.outcome.size()) {
  name(&page().taken, "taken");
  name(&page().acked_through, "acked_through");
  name(&page().refused, "refused");
  name(&page().released, "released");
  name(memory_.data() + shm::page_bytes, "words");
  name(bytes_.data(), "bytes");
  name(&tail_, "tail");
  name(&handed_over_, "handed over");
}

std::vector<std::string> AckScenario::roles() const {
  std::vector<std::string> result{"exchange", "taker"};
  if (!plan_.worker.empty()) result.emplace_back("worker");
  return result;
}

void AckScenario::reset() {
  std::memset(memory_.data() + shm::page_bytes, 0, slots * sizeof(shm::Word64));
  page().slots = slots;
  for (shm::Word64* word : {&page().taken, &page().released, &page().acked_through, &page().refused, &tail_}) {
    word->store(plan_.start, std::memory_order_relaxed);
  }
  handed_over_.store(0, std::memory_order_relaxed);
  bytes_ = {};
  writer_ = ring::AckWriter(&page());
  reader_ = ring::AckReader(&page(), slots);
  entries_ = floor_ = plan_.start;
  settled_.clear();
}

void AckScenario::run(std::size_t role) {
  if (role == 0) return exchange();
  member(role == 1 ? plan_.taker : plan_.worker);
}

void AckScenario::finish() {
  expect(settled_.size() == plan_.outcome.size(), "a delivery is settled twice");
  if (!plan_.outcome_may_differ) expect(settled_ == plan_.outcome, "a delivery is settled as what nobody decided");
}

// --------------------------------------------------------------------------------------------------------------- member

void AckScenario::member(const Steps& steps) {
  for (const Step& next : steps) step(next);
}

void AckScenario::read_bytes(std::uint64_t entry) {
  const std::uint64_t& bytes = bytes_[entry % slots];
  shm::Memory::reading(&bytes, sizeof bytes);
  expect(bytes == ~entry, "the bytes are not those of the delivery");
}

void AckScenario::step(const Step& step) {
  const std::uint64_t entry = plan_.start + step.entry;
  switch (step.act) {
    case Act::take:
    case Act::take_unread:
      if (plan_.at_most_once) writer_.released(entry);  // what was taken before is dead from here on
      while (static_cast<std::int64_t>(tail_.load(std::memory_order_acquire) - entry) <= 0) pause();
      writer_.taken(entry + 1);
      if (step.act == Act::take) read_bytes(entry);
      break;
    case Act::read:
      read_bytes(entry);
      break;
    case Act::ack:
    case Act::nack:
    case Act::reject: {
      const Verdict verdict = step.act == Act::ack    ? Verdict::ack
                              : step.act == Act::nack ? Verdict::nack
                                                      : Verdict::reject;
      expect(writer_.verdict(entry, verdict), "a verdict is refused");
      break;
    }
    case Act::extend:
      (void)writer_.extend(entry, 1);
      break;
    case Act::through:
      writer_.ack_through(entry + 1);
      break;
    case Act::detach:
      writer_.released(entry + 1);
      break;
    case Act::late_ack:
      expect(!writer_.verdict(entry, Verdict::ack), "a verdict of a lap before is taken");
      break;
    case Act::signal:
      handed_over_.store(step.entry, std::memory_order_release);
      break;
    case Act::wait:
      while (handed_over_.load(std::memory_order_acquire) < step.entry) pause();
      break;
  }
}

// ------------------------------------------------------------------------------------------------------------- exchange

void AckScenario::exchange() {
  while (floor_ != end_) {
    const bool delivered = deliver();
    const bool moved = plan_.at_most_once ? settle_at_most_once() : settle();
    if (!delivered && !moved) pause();
  }
}

bool AckScenario::deliver() {
  bool any = false;
  for (; entries_ != end_ && entries_ - floor_ < slots; any = true) {
    const std::uint64_t bytes = ~entries_;
    shm::shared_copy(&bytes_[entries_ % slots], &bytes, sizeof bytes);
    tail_.store(++entries_, std::memory_order_release);
  }
  return any;
}

void AckScenario::settled(std::uint64_t entry, Verdict verdict) {
  expect(entry - plan_.start == settled_.size(), "deliveries are settled out of order");
  settled_.push_back(verdict);
}

// As Exchange::settle and Exchange::sweep_verdicts together do, for deliveries in order; what is detached times out.
bool AckScenario::settle() {
  std::uint64_t taken = plan_.looks == Looks::taken_first ? reader_.taken() : 0;
  std::uint64_t refused = plan_.looks == Looks::refused_first ? reader_.refused() : 0;
  const std::uint64_t through = reader_.acked_through();
  if (plan_.looks != Looks::refused_first) refused = reader_.refused();
  const std::uint64_t released = reader_.released();
  if (plan_.looks != Looks::taken_first) taken = reader_.taken();
  const std::uint64_t open = taken - floor_;
  expect(open <= entries_ - floor_, "more is taken than was delivered");
  const auto within = [&](std::uint64_t word) {
    expect(static_cast<std::int64_t>(word - taken) <= 0, "a verdict is ahead of the take");
    return word - floor_ <= open ? word - floor_ : 0;
  };
  const std::uint64_t through_open = within(through);
  const std::uint64_t refused_open = within(refused);
  const std::uint64_t released_open = within(released);
  std::uint64_t at = 0;
  while (at < open) {
    const std::uint64_t entry = floor_ + at;
    if (at < through_open && refused_open <= at) {
      for (; at < through_open; ++at) settled(floor_ + at, Verdict::ack);
      continue;
    }
    Verdict verdict = reader_.verdict(entry);
    if (verdict == Verdict::none && at < through_open) verdict = Verdict::ack;
    const bool let_go = verdict != Verdict::none || at < released_open;
    if (!let_go && plan_.looks != Looks::passes_what_is_not_let_go) break;
    settled(entry, verdict);
    ++at;
  }
  floor_ += at;
  return at != 0;
}

bool AckScenario::settle_at_most_once() {
  const std::uint64_t released = reader_.released();
  const std::uint64_t taken = reader_.taken();
  expect(taken - floor_ <= entries_ - floor_, "more is taken than was delivered");
  // The last one is never released in a scenario that ends: taken is enough, as nothing uses its bytes again.
  const std::uint64_t to = taken == end_ ? taken : std::min(released, taken);
  const bool moved = to != floor_;
  for (; floor_ != to; ++floor_) settled(floor_, Verdict::ack);
  return moved;
}

}  // namespace ackring::test::interleave
