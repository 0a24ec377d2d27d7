// The exchange dies at every point of a scenario in which it keeps last values and event ids: last values are
// cleaned, subscriptions begin with them, events with ids come twice. Each event is delivered once, each id counts once, and
// who begins with last values gets exactly them. See crash_test.cpp for the method.
#include <algorithm>

#include "lib/ring/header_field.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/exchange/enumerate.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::uint64_t rounds = 6;
constexpr std::uint64_t per_round = 8;

std::string with_id(const std::string& id) {
  std::string text(ring::header_prefix_bytes, '\0');
  ring::write_header_prefix(reinterpret_cast<std::byte*>(text.data()), event_id_header, id);
  return text.append(event_id_header).append(id);
}

// Rings that hold little more than they have to: the time of this test is that of making files.
SubscriptionOptions small(SubscriptionOptions options) {
  options.ring_bytes = 512u << 10;
  options.max_in_flight = 256;
  return options;
}

class Scenario {
 public:
  explicit Scenario(KillHook& hook) : hook_(hook) {
    hook.clock = &world_.now_ns;
    hook.virtual_time = true;
    SubscriptionOptions options;
    options.name = last_values_name;
    options.patterns = {"v.#"};
    world_.x->create_subscription(options, false);
    options = {};
    options.name = event_ids_name;
    options.patterns = {"o.#"};
    options.max_events = limits::least_event_ids;
    world_.x->create_subscription(options, false);
    options = small({});
    options.ring_bytes = 2u << 20;  // for all that comes: nobody reads it
    world_.member("s", {"#"}, options);
    publisher_ = std::make_unique<CorePublisher>(world_.publisher("p", 512u << 10));
  }

  void on_death(OnDeath look) { on_death_ = std::move(look); }

  int run() {
    // Values of which most are replaced: large enough that the log is cleaned while the exchange may die.
    const std::string filler(40'000, 'x');
    for (std::uint64_t round = 0; round < rounds; ++round) {
      for (std::uint64_t i = 0; i < per_round; ++i) {
        publisher_->published_ns = ++time_;
        publisher_->headers.clear();
        const std::string topic = round != 0 && i == 0 ? "v.1" : "v." + std::to_string(i);
        publish(topic, std::to_string(time_) + filler);
        last_[topic] = time_;
        publisher_->headers = with_id(std::to_string(round * per_round + i / 2));
        publish("o." + std::to_string(i), i % 2 == 0 ? "first" : "again");
      }
      guarded([&] { world_.run(); });
      world_.run();
      if (round == 3) begin();
    }
    begin();
    check();
    return deaths_;
  }

 private:
  void publish(const std::string& topic, const std::string& payload) {
    REQUIRE(publisher_->add(topic, payload));
    publisher_->commit();
    if (time_ % 3 == 0) guarded([&] { world_.run(); });
  }

  template <class Step>
  void guarded(Step step) {
    if (deaths_ == 0) shm::Environment::hook = &hook_;
    try {
      step();
      shm::Environment::hook = nullptr;
    } catch (const Death&) {
      shm::Environment::hook = nullptr;
      ++deaths_;
      recover();
    }
  }

  void recover() {
    check_books(exchange::stat_document(*world_.directory, "crash"));
    if (on_death_) on_death_(*world_.directory);
    check_sound_at(*world_.directory, hook_.die_before);
    world_.restart();
    check_found_sound(*world_.x);
    check_books(exchange::stat_document(*world_.directory, "crash"));
    check_sound_at(*world_.directory, hook_.die_before);
    check_log();
  }

  // What the counters say is what lies in the log.
  void check_log() {
    const exchange::Queue& queue = *world_.x->find_queue(last_values_name);
    std::uint64_t events = 0;
    std::uint64_t bytes = 0;
    std::uint64_t position = queue.block.backlog_head;
    while (const shm::RecordHeader* record = queue.backlog.at(position)) {
      ++events;
      bytes += record->bytes;
      position = log::SegmentLog::next(position, *record);
    }
    CHECK(events == queue.block.backlog_events);
    CHECK(bytes == queue.block.backlog_bytes);
  }

  // A client asks for a subscription until it has one, as it would after its exchange has died.
  void begin() {
    SubscriptionOptions options;
    options = small(options);
    options.name = "begun" + std::to_string(++begun_);
    options.patterns = {"v.#"};
    options.from = StartFrom::last_values;
    for (int i = 0; i < 3 && world_.x->find_queue(options.name) == nullptr; ++i) {
      guarded([&] { world_.x->create_subscription(options, false); });
    }
    auto member = world_.member(options.name, {});
    world_.run();
    std::uint64_t before = 0;
    std::uint64_t count = 0;
    for (Seen seen; member.take(seen); ++count) {
      const std::uint64_t time = std::stoull(seen.payload);
      CHECK(time > before);
      before = time;
      CHECK(std::any_of(last_.begin(), last_.end(), [time](const auto& value) { return value.second == time; }));
      CHECK(seen.delivery == count + 1);
      member.ack_through(seen.entry);
    }
    CHECK(count == last_.size());
    world_.tick();
    world_.x->detach_member(world_.x->find_queue(options.name)->lane);
    world_.x->remove_subscription(*world_.x->find_queue(options.name));
  }

  void check() {
    const auto stat = world_.stat();
    CHECK(row_of(stat, "s")["matched"] == rounds * (per_round + per_round / 2));
    CHECK(row_of(stat, "@ids")["matched"] == rounds * per_round / 2);
    CHECK(row_of(stat, "@last")["matched"] == rounds * per_round);
    CHECK(row_of(stat, "@last")["dropped"]["drop-oldest"] > 0);
    CHECK(stat["publishers"][0]["duplicates"] == rounds * per_round / 2);
  }

  KillHook& hook_;
  OnDeath on_death_;
  World world_;
  std::unique_ptr<CorePublisher> publisher_;
  std::map<std::string, std::uint64_t> last_;  // what the last event of each topic says
  std::uint64_t time_ = 0;
  int begun_ = 0;
  int deaths_ = 0;
};

}  // namespace

TEST_CASE("the exchange may die at any point while last values and event ids are kept, and again in the recovery") {
  die_at_every_point<Scenario>("last values and event ids", 3);
  check_named_points({shm::CrashPoint::last_values_clean, shm::CrashPoint::last_values_begin,
                      shm::CrashPoint::event_ids_remember, shm::CrashPoint::redo_clean});
}
