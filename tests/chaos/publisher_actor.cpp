#include <poll.h>

#include <stdexcept>
#include <vector>

#include "tests/chaos/actors.hpp"

namespace ackring::chaos {

Bus open_bus(const Place& place) {
  return with_patience([&] {
    BusOptions options;
    options.directory = place.directory;
    options.exchange = place.mode;
    options.timeout = 5s;
    return Bus::open(bus_name, options);
  });
}

namespace {

// Anything but these two ends the run: the handle was lost, or an event refused that is as it should be.
bool went_out(Outcome outcome) {
  if (outcome == Outcome::ok) return true;
  if (outcome != Outcome::back_pressured) throw std::runtime_error(std::string("publish: ") + to_string(outcome));
  return false;
}

class Work {
 public:
  Work(const Place& place, std::size_t number)
      : place_(place),
        number_(number),
        style_(static_cast<Style>(number)),
        notes_(place.notes->of_publishers[number]),
        life_(place, notes_.actor) {}

  void run() {
    Bus bus = open_bus(place_);
    Publisher publisher =
        with_patience([&] { return bus.publisher({.name = publisher_name(number_), .ring_bytes = ring_bytes}); });
    if (publisher.max_event_bytes() != largest_bytes) throw std::runtime_error("the largest event is not what it was");
    resume(publisher);
    while (life_.phase() == Phase::storm) {
      const std::uint64_t burst = life_.up_to(12);
      if (style_ == Style::batches) {
        publish_batch(publisher, burst);
      } else {
        for (std::uint64_t i = 0; i < burst; ++i) publish_next(publisher);
      }
      ::poll(nullptr, 0, static_cast<int>(life_.up_to(20)));
    }
    const Outcome outcome = publisher.flush(patience);
    if (outcome != Outcome::ok) throw std::runtime_error(std::string("flush: ") + to_string(outcome));
    notes_.finished.store(1, std::memory_order_seq_cst);
  }

 private:
  // The exchange knows what the predecessor has committed; it lies between what that noted before and after.
  void resume(const Publisher& publisher) {
    const std::uint64_t committed = notes_.committed.load(std::memory_order_seq_cst);
    const std::uint64_t begun = notes_.begun.load(std::memory_order_seq_cst);
    next_ = publisher.sequence() + 1;
    if (next_ <= committed || next_ > begun + 1) {
      throw std::runtime_error("it has number " + std::to_string(publisher.sequence()) + ", not between " +
                               std::to_string(committed) + " and " + std::to_string(begun));
    }
    if (style_ == Style::numbered) {
      // As an application would that has only its own notes, and to be sure goes back further than it has to.
      next_ = committed + 1 - std::min(committed, life_.up_to(3));
    }
    notes_.committed.store(publisher.sequence(), std::memory_order_seq_cst);
    notes_.begun.store(publisher.sequence(), std::memory_order_seq_cst);
  }

  void begin(std::uint64_t last) {
    if (notes_.begun.load(std::memory_order_seq_cst) < last) notes_.begun.store(last, std::memory_order_seq_cst);
    life_.moment();
  }
  void commit(std::uint64_t last) {
    life_.moment();
    if (notes_.committed.load(std::memory_order_seq_cst) < last) {
      notes_.committed.store(last, std::memory_order_seq_cst);
    } else {
      notes_.repeated.fetch_add(1, std::memory_order_seq_cst);
    }
    next_ = last + 1;
  }
  [[nodiscard]] EventAttributes attributes_of(const Event& event, std::uint64_t number) const {
    EventAttributes attributes{.key = event.key, .ttl = event.ttl, .delay = event.delay};
    if (style_ == Style::numbered) attributes.sequence = number;
    return attributes;
  }

  void publish_next(Publisher& publisher) {
    const std::uint64_t number = next_;
    const Event event = event_of(place_.seed, number_, number);
    begin(number);
    if (style_ == Style::loans) {
      Loan loan = publisher.loan(topics[event.topic], event.bytes, attributes_of(event, number));
      if (!went_out(loan.outcome())) return;
      write_payload(event, loan.data().first(loan.data().size() / 2));
      life_.moment();
      write_payload(event, loan.data());
      if (life_.in(20)) return;  // changed its mind: nothing is left behind
      if (!went_out(loan.commit())) return;
    } else {
      payload_.resize(event.bytes);
      write_payload(event, payload_);
      if (!went_out(publisher.publish_wait(topics[event.topic], payload_, 20ms, attributes_of(event, number)))) return;
    }
    commit(number);
  }

  void publish_batch(Publisher& publisher, std::uint64_t burst) {
    std::uint64_t last = next_ - 1;
    begin(last + burst);
    for (; burst > 0; --burst) {
      const Event event = event_of(place_.seed, number_, last + 1);
      payload_.resize(event.bytes);
      write_payload(event, payload_);
      if (!went_out(publisher.add(topics[event.topic], payload_, attributes_of(event, last + 1)))) break;
      ++last;
      life_.moment();
    }
    if (last == next_ - 1) return;
    if (went_out(publisher.commit_batch())) commit(last);
  }

  const Place& place_;
  std::size_t number_;
  Style style_;
  PublisherNotes& notes_;
  Life life_;
  std::uint64_t next_ = 1;
  std::vector<std::byte> payload_;
};

}  // namespace

void be_publisher(const Place& place, std::size_t number) { Work(place, number).run(); }

}  // namespace ackring::chaos
