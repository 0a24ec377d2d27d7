#include <poll.h>

#include <deque>
#include <stdexcept>

#include "lib/shm/record_format.hpp"
#include "tests/chaos/actors.hpp"

namespace ackring::chaos {

namespace {

// What ended the attempt before, as the exchange wrote it into the record.
std::uint8_t cause_of(const std::byte* record) {
  shm::RecordHeader header;
  std::memcpy(&header, record, sizeof header);
  if ((header.flags & shm::flag_attempt) == 0) return 0;
  record += sizeof header + ((header.flags & shm::flag_timing) != 0 ? sizeof(shm::TimingInfo) : 0);
  shm::AttemptInfo info;
  std::memcpy(&info, record, sizeof info);
  return static_cast<std::uint8_t>(info.cause);
}

class Work {
 public:
  Work(const Place& place, const Role& role, std::size_t slot)
      : place_(place), role_(role), slot_(slot), notes_(place.notes->of_members[slot]), life_(place, notes_.actor) {}

  void run() {
    Bus bus = open_bus(place_);
    Subscriber subscriber = with_patience([&] { return bus.subscribe({.name = role_.options.name}); });
    while (life_.phase() != Phase::leave) {
      if (subscriber.closed()) throw std::runtime_error("its subscriber was closed");
      if (role_.views) {
        take_views(subscriber);
      } else {
        take_deliveries(subscriber);
      }
      if (life_.phase() == Phase::storm && life_.in(1)) break;  // leaves, and comes again
    }
    life_.end();  // what it holds without a verdict is nacked, or was taken by nobody any more
    for (Held& held : held_) held.note->verdict = Verdict::nack;
    held_.clear();
    if (life_.phase() == Phase::leave) (void)subscriber.flush(patience);
  }

 private:
  struct Held {
    Delivery delivery;
    Note* note;
    std::int64_t until_ns;
    bool detached;
  };

  // `view` is anything with the accessors of a delivery.
  template <class View>
  Note& note(const View& view, std::string_view publisher, std::string_view topic, std::int64_t before_ns) {
    const std::uint64_t at = notes_.count.load(std::memory_order_relaxed);  // relaxed: this process is the only writer
    if (at == notes_of_member) throw std::runtime_error("no room for more notes: run a shorter round");
    Note& note = notes_.notes[at];
    note.before_ns = before_ns;
    note.taken_ns = now_ns();
    note.delivery = view.delivery();
    note.sequence = view.sequence();
    note.attempt = view.attempt();
    note.life = place_.life;
    note.slot = static_cast<std::uint32_t>(slot_);
    note.publisher = static_cast<std::uint8_t>(publisher_number(publisher));
    const Event event = event_of(place_.seed, note.publisher, note.sequence);
    if (topic != topics[event.topic] || view.key() != event.key || !same_payload(event, view.payload())) {
      note.wrong |= wrong_bytes;
    }
    if (note.taken_ns < static_cast<std::int64_t>(view.published_ns()) + event.delay.count()) note.wrong |= wrong_time;
    notes_.count.store(at + 1, std::memory_order_seq_cst);
    return note;
  }

  template <class Give>
  void decide(Note& note, Verdict verdict, Give give, bool detached = false) {
    life_.moment();
    note.decided_ns = now_ns();
    note.verdict = verdict;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // a SIGKILL comes between two instructions of this process
    life_.moment();
    const Outcome outcome = give();
    if (outcome == Outcome::ok) {
      note.done_ns = now_ns();
    } else if (!detached || note.decided_ns < note.before_ns + role_.options.ack_timeout.count()) {
      note.wrong |= wrong_verdict;  // what has timed out and lies in the exchange's hands alone may be long forgotten
    }
    life_.moment();
  }

  Verdict choose() {
    if (life_.phase() != Phase::storm) return Verdict::ack;
    const std::uint64_t at = life_.up_to(999);
    if (at < role_.habits.nack) return Verdict::nack;
    return at < role_.habits.nack + role_.habits.reject ? Verdict::reject : Verdict::ack;
  }
  std::int64_t nack_delay() { return life_.in(500) ? -1 : static_cast<std::int64_t>(life_.up_to(30)) * 1'000'000; }

  void take_deliveries(Subscriber& subscriber) {
    const std::int64_t before_ns = now_ns();
    auto delivery = subscriber.take(2ms);
    if (delivery) {
      Note& taken = note(*delivery, delivery->publisher(), delivery->topic(), before_ns);
      life_.moment();
      if (life_.phase() == Phase::storm && life_.in(role_.habits.hold) && held_.size() < 8) {
        const std::int64_t timeout_ns = role_.options.ack_timeout.count();
        const bool detached = life_.in(300);
        if (detached) delivery->detach();
        const auto for_ns = static_cast<std::int64_t>(life_.up_to(2'000)) * timeout_ns / 1'000;
        held_.push_back({std::move(*delivery), &taken, now_ns() + for_ns, detached});
      } else if (life_.phase() == Phase::storm && life_.in(role_.habits.forget)) {
        taken.decided_ns = now_ns();
        taken.verdict = Verdict::nack;
        delivery.reset();
        taken.done_ns = now_ns();
      } else {
        give(*delivery, taken, choose());
      }
    }
    for (std::size_t i = held_.size(); i > 0; --i) {
      Held held = std::move(held_.front());
      held_.pop_front();
      if (life_.phase() == Phase::storm && now_ns() < held.until_ns) {
        held_.push_back(std::move(held));
        continue;
      }
      const Event event = event_of(place_.seed, held.note->publisher, held.note->sequence);
      if (!same_payload(event, held.delivery.payload())) held.note->wrong |= wrong_later;
      give(held.delivery, *held.note, Verdict::ack, held.detached);
    }
  }

  void give(Delivery& delivery, Note& note, Verdict verdict, bool detached = false) {
    const std::int64_t delay = verdict == Verdict::nack ? nack_delay() : -1;
    note.nack_ns = delay;
    const auto call = [&] {
      if (verdict == Verdict::ack) return delivery.ack();
      if (verdict == Verdict::reject) return delivery.reject("chaos");
      return delay < 0 ? delivery.nack() : delivery.nack(Nanoseconds(delay));
    };
    decide(note, verdict, call, detached);
  }

  void take_views(Subscriber& subscriber) {
    std::array<DeliveryView, 16> views;
    std::array<Note*, 16> taken{};
    const std::int64_t before_ns = now_ns();
    const std::size_t count = subscriber.take_batch(std::span(views).first(1 + life_.up_to(15)), 2ms);
    for (std::size_t i = 0; i < count; ++i) {
      const DeliveryView& view = views[i];
      taken[i] = &note(view, subscriber.publisher(view), subscriber.topic(view), before_ns);
      taken[i]->cause = cause_of(view.record);
    }
    if (count == 0) return;
    life_.moment();
    if (life_.phase() == Phase::storm && life_.in(role_.habits.hold)) {
      const std::int64_t timeout_ms = role_.options.ack_timeout.count() / 1'000'000;
      ::poll(nullptr, 0, static_cast<int>(life_.up_to(2 * timeout_ms)));
      for (std::size_t i = 0; i < count; ++i) {
        const Event event = event_of(place_.seed, taken[i]->publisher, taken[i]->sequence);
        if (!same_payload(event, views[i].payload())) taken[i]->wrong |= wrong_later;
      }
    }
    if (life_.in(500)) {  // the one verdict for all
      for (std::size_t i = 0; i + 1 < count; ++i) {
        taken[i]->decided_ns = now_ns();
        taken[i]->verdict = Verdict::ack;
      }
      decide(*taken[count - 1], Verdict::ack, [&] { return subscriber.ack_through(views[count - 1]); });
      for (std::size_t i = 0; i + 1 < count; ++i) taken[i]->done_ns = taken[count - 1]->done_ns;
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const Verdict verdict = choose();
      const std::int64_t delay = verdict == Verdict::nack ? nack_delay() : -1;
      taken[i]->nack_ns = delay;
      decide(*taken[i], verdict, [&] {
        if (verdict == Verdict::ack) return subscriber.ack(views[i]);
        if (verdict == Verdict::reject) return subscriber.reject(views[i], "chaos");
        return delay < 0 ? subscriber.nack(views[i]) : subscriber.nack(views[i], Nanoseconds(delay));
      });
    }
  }

  const Place& place_;
  const Role& role_;
  std::size_t slot_;
  MemberNotes& notes_;
  Life life_;
  std::deque<Held> held_;
};

}  // namespace

void be_member(const Place& place, const Role& role, std::size_t slot) { Work(place, role, slot).run(); }

}  // namespace ackring::chaos
