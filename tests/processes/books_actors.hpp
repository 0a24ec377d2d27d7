// Who takes part in the scene of books_test.cpp, each in a process of its own: publishers, members, an operator.
#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <deque>
#include <map>
#include <new>
#include <random>
#include <string_view>

#include "tests/processes/support.hpp"

namespace ackring::test {

inline constexpr std::size_t publishers = 3;
inline constexpr std::size_t numbering_publisher = 2;  // numbers its events itself, and publishes some again

struct Role {
  SubscriptionOptions options;
  std::size_t members;
  const char* purged = "rejected: it is 1";  // reason of the dead letters that the operator purges
};

inline std::vector<Role> roles() {
  std::vector<Role> all;
  const auto add = [&all](const char* name, std::size_t members, auto set) {
    SubscriptionOptions options;
    options.name = name;
    options.patterns = {"run.#"};
    options.ack_timeout = 100ms;
    options.max_deliveries = 3;
    options.backoff_initial = 2ms;
    options.backoff_max = 20ms;
    options.ring_bytes = 64u << 10;
    options.max_events = 3'000;
    set(options);
    all.push_back({std::move(options), members});
  };
  add("plain", 1, [](SubscriptionOptions& options) { options.max_deliveries = 2; });
  add("group", 3, [](SubscriptionOptions& options) {
    options.group = true;
    options.max_in_flight = 16;
  });
  add("ordered", 1, [](SubscriptionOptions& options) {
    options.ordered = true;
    options.max_events = 500;
    options.overflow = Overflow::drop_oldest;
  });
  add("keys", 2, [](SubscriptionOptions& options) {
    options.group = options.ordered_by_key = true;
    options.max_in_flight = 32;
  });
  add("strict", 2, [](SubscriptionOptions& options) {
    options.group = options.ordered = options.ordered_by_key = true;
    options.max_events = 2'000;
    options.overflow = Overflow::drop_newest;
  });
  add("once", 1, [](SubscriptionOptions& options) {
    options.guarantee = at_most_once;
    options.ring_bytes = 4096;  // the largest events do not fit
    options.max_events = 50;
    options.overflow = Overflow::drop_oldest;
  });
  add("narrow", 1, [](SubscriptionOptions& options) { options.patterns = {"run.a.#", "run.*.x"}; });
  add("offline", 0, [](SubscriptionOptions& options) {
    options.max_events = 1'000;
    options.overflow = Overflow::drop_newest;
  });
  add("letters", 1, [](SubscriptionOptions& options) { options.dead_letter_topic = "dead.letters"; });
  add("watcher", 1, [](SubscriptionOptions& options) { options.patterns = {"dead.#"}; });
  add("listed", 1, [](SubscriptionOptions& options) {
    options.max_deliveries = 4;
    options.retry_delays = {1ms, 30ms};
  });
  add("fleeting", 1, [](SubscriptionOptions& options) {
    options.max_in_flight = 8;
    options.ttl = 20ms;
    options.dead_letter_expired = true;
  });
  all.back().purged = "expired";
  add("burying", 0, [](SubscriptionOptions& options) {
    options.max_events = 200;
    options.overflow = Overflow::dead_letter;
  });
  all.back().purged = "overflow";
  return all;
}

// What publishers and members say of themselves, so that the books are not only held against themselves.
struct Notes {
  std::array<std::atomic<std::uint64_t>, publishers> begun;  // events that are about to be committed at most
  std::array<std::atomic<std::uint64_t>, publishers> committed;
  std::atomic<std::uint64_t> repeated;    // events with a number that an earlier one had
  std::atomic<std::uint64_t> delayed;     // taken, of those that were published with a delay
  std::atomic<std::uint64_t> before_due;  // of these: taken too early
};

struct SharedNotes {
  SharedNotes() {
    void* memory = ::mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    notes = static_cast<Notes*>(memory);  // zero: all that is in it begins like that
  }
  ~SharedNotes() { ::munmap(notes, sizeof(Notes)); }
  SharedNotes(const SharedNotes&) = delete;
  SharedNotes& operator=(const SharedNotes&) = delete;
  Notes* notes = nullptr;
};

// Tries again while the exchange is away or the name still held.
template <class Make>
auto with_patience(Make make) {
  const std::int64_t deadline = now_ns() + patience.count();
  while (true) {
    try {
      return make();
    } catch (const Error&) {
      if (now_ns() > deadline) throw;
      ::poll(nullptr, 0, 2);
    }
  }
}

// An event whose delay is told by its payload, for whoever takes it.
inline constexpr std::string_view due_mark = "due ";

inline void be_publisher(Channel& channel, const std::string& directory, Notes& notes, std::size_t number,
                         std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = with_patience([&] { return open_bus(directory); });
  const std::string name = "p" + std::to_string(number);
  Publisher publisher = with_patience([&] { return bus.publisher({.name = name, .ring_bytes = 64u << 10}); });
  channel.send({{"ready", true}});
  const std::array<const char*, 5> topics{"run.a.x", "run.b.x", "run.c.y.z", "run.a", "lonely.x"};
  std::uint64_t events = 0;
  while (!channel.receive(0ns)) {
    const std::uint64_t burst = random() % 40;
    for (std::uint64_t i = 0; i < burst; ++i) {
      std::string payload(random() % 50 == 0 ? 1'500 : random() % 200, 'x');
      const std::string key = random() % 4 == 0 ? "" : "k" + std::to_string(random() % 30);
      EventAttributes attributes{.key = key};
      if (random() % 6 == 0) {
        attributes.delay = std::chrono::milliseconds(1 + random() % 100);
        payload.insert(0, std::string(due_mark) + std::to_string(now_ns() + attributes.delay.count()) + " ");
      }
      if (random() % 6 == 0) attributes.ttl = attributes.delay + std::chrono::milliseconds(1 + random() % 200);
      const std::uint64_t last = publisher.sequence();
      bool repeats = false;
      if (number == numbering_publisher) {
        repeats = last != 0 && random() % 20 == 0;
        attributes.sequence = repeats ? last - random() % std::min<std::uint64_t>(last, 5) : last + 1 + random() % 3;
      }
      notes.begun[number].store(events + 1, std::memory_order_seq_cst);
      const char* topic = topics[random() % topics.size()];
      if (publisher.publish_wait(topic, as_bytes(payload), 20ms, attributes) != Outcome::ok) continue;
      if (repeats) notes.repeated.fetch_add(1, std::memory_order_seq_cst);
      notes.committed[number].store(++events, std::memory_order_seq_cst);
    }
    ::poll(nullptr, 0, static_cast<int>(random() % 8));
  }
  require(publisher.flush(patience) == Outcome::ok, name + ": flush");
  channel.send({{"events", events}});
  channel.receive(patience);
}

inline void note_times(const Delivery& delivery, const std::string& name, Notes& notes) {
  std::string_view text = delivery.text();
  if (!text.starts_with(due_mark)) return;
  text.remove_prefix(due_mark.size());
  std::int64_t due = 0;
  std::from_chars(text.data(), text.data() + text.size(), due);
  notes.delayed.fetch_add(1, std::memory_order_seq_cst);
  const std::int64_t now = now_ns();
  if (now >= due) return;
  notes.before_due.fetch_add(1, std::memory_order_seq_cst);
  const std::string complaint =
      name + ": event " + std::string(delivery.publisher()) + "/" + std::to_string(delivery.sequence()) + ", attempt " +
      std::to_string(delivery.attempt()) + ": taken " + std::to_string(due - now) + " ns before it was due\n";
  std::fputs(complaint.c_str(), stderr);
}

inline void be_member(Channel& channel, const std::string& directory, const SubscriptionOptions& options, Notes& notes,
                      std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = with_patience([&] { return open_bus(directory); });
  Subscriber subscriber = with_patience([&] { return bus.subscribe({.name = options.name}); });
  channel.send({{"ready", true}});
  std::deque<Delivery> held;  // some of them for longer than the ack timeout
  for (std::uint64_t turn = 0; !(turn % 16 == 0 && channel.receive(0ns)); ++turn) {
    auto delivery = subscriber.take(2ms);
    if (random() % 400 == 0) ::poll(nullptr, 0, 150);
    if (held.size() > 8 || (!delivery && !held.empty())) {
      (void)held.front().ack();
      held.pop_front();
    }
    if (!delivery) continue;
    note_times(*delivery, options.name, notes);
    switch (random() % 24) {
      case 0:
        (void)delivery->nack();
        break;
      case 1:
        (void)delivery->nack(std::chrono::milliseconds(random() % 10));
        break;
      case 2:
        (void)delivery->reject("it is " + std::to_string(random() % 3));
        break;
      case 3:
        break;  // no verdict: nacked
      case 4:
      case 5:
        held.push_back(std::move(*delivery));
        break;
      case 6:
        (void)delivery->extend(200ms);
        held.push_back(std::move(*delivery));
        break;
      default:
        (void)delivery->ack();
    }
  }
  held.clear();
  (void)subscriber.flush(patience);
}

inline void be_operator(Channel& channel, const std::string& directory, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bus bus = open_bus(directory);
  const std::vector<Role> all = roles();
  std::map<std::string, std::uint64_t> done;
  while (!channel.receive(std::chrono::milliseconds(random() % 10))) {
    const Role& role = all[random() % all.size()];
    const std::string& name = role.options.name;
    try {
      switch (random() % 8) {
        case 0:
          bus.pause_subscription(name);
          ++done["paused"];
          break;
        case 1:
          if (random() % 4 == 0) done["purged"] += bus.purge_subscription(name);
          break;
        case 2:
          done[std::string("letters purged, ") + role.purged] += bus.purge_dead_letters(name, {.reason = role.purged});
          break;
        case 3:
        case 4:
          done["requeued"] += bus.requeue_dead_letters(name);
          break;
        default:
          bus.resume_subscription(name);
      }
    } catch (const Error& error) {  // the exchange is away
      const bool known = error.code() == ErrorCode::timeout || error.code() == ErrorCode::no_exchange;
      require(known, std::string("operator: ") + error.what());
    }
  }
  for (const Role& role : all) {
    with_patience([&] {
      bus.resume_subscription(role.options.name);
      return true;
    });
  }
  channel.send({{"done", done}});
  channel.receive(patience);
}

}  // namespace ackring::test
