// Members write whatever they like into their ack pages, between the exchange's sweeps and in the middle of them. Others
// lose nothing and get nothing twice, the books of the attacked subscriptions hold, and once the hostile member is gone
// its successor gets what is left.
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "ackring/error.hpp"
#include "lib/ring/reject_reason.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace ackring;

constexpr std::uint64_t ms = 1'000'000;
constexpr std::size_t slots = 16;
constexpr std::uint32_t most_deliveries = 3;
constexpr std::array<const char*, 4> attacked{"plain", "ordered", "once", "group"};

SubscriptionOptions options_of(const std::string& name) {
  SubscriptionOptions options;
  options.ring_bytes = 4096;
  options.max_in_flight = slots;
  options.ack_timeout = std::chrono::milliseconds(20);
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(10);
  options.max_deliveries = most_deliveries;
  options.overflow = Overflow::drop_oldest;  // nobody waits for those who are attacked
  options.max_events = 40;
  options.ordered = name == "ordered";
  options.group = options.ordered_by_key = name == "group";
  if (name == "once") options.guarantee = Guarantee::at_most_once;
  if (name == "plain") options.dead_letter_topic = "letters";
  return options;
}

class Fixture {
 public:
  Fixture() {
    world_.now_ns = time_.time_ns;
    SubscriptionOptions options;
    options.ring_bytes = 16 << 10;
    options.max_in_flight = 64;
    witness_.emplace(world_.member("witness", {"e.#"}, options));
    for (const char* name : attacked) join(name);
    neighbour_.emplace(world_.member("group", {"e.#"}, options_of("group")));
    publisher_.emplace(world_.publisher("publisher"));
  }

  void step(fuzz::Input& input) {
    const std::uint8_t what = input.byte();
    const std::string name = attacked[what / 32 % attacked.size()];
    switch (what % 16) {
      case 0:
        publish(1 + input.below(12));
        break;
      case 1:
        time_.time_ns += ms * (1 + input.byte());
        break;
      case 2:
        world_.restart();
        break;
      case 3:
        operate(name, input.byte());
        break;
      case 4:
        leave(name);
        join(name);
        break;
      case 5:
      case 6:
        behave(name, input);
        break;
      case 7:
        for (std::size_t i = 1 + input.below(8); i > 0; --i) behave(name, input);
        break;
      default:
        forge(name, what % 16, input);
        break;
    }
    publish(1);
    run();
  }

  // The hostile ones die. Who comes after them gets, and decides, what is left.
  void end() {
    time_.store_before(0, nullptr, 0, 0);
    for (const char* name : attacked) {
      world_.x->resume(*world_.x->find_queue(name));
      leave(name);
      join(name);
    }
    for (int round = 0; round < 200 && !nothing_is_left(); ++round) {
      run();
      test::Seen seen;
      for (auto& [name, member] : members_) {
        while (member.take(seen)) member.verdict(seen.entry, ring::Verdict::ack);
        if (name == "once") member.release();
      }
      time_.time_ns += 15 * ms;
    }
    check_books();
    const auto stat = exchange::stat_document(*world_.x, "fuzzed");
    INFO(stat.dump(1));
    CHECK(nothing_is_left());
    const auto row = test::row_of(stat, "witness");
    CHECK(row["matched"].get<std::uint64_t>() == published_);
    CHECK(row["acked"].get<std::uint64_t>() == published_);
    CHECK(row["redelivered"].get<std::uint64_t>() == 0);
    CHECK(witnessed_ == published_);
  }

 private:
  void join(const std::string& name) {
    members_.erase(name);
    members_.emplace(name, world_.member(name, {"e.#"}, options_of(name)));
  }
  void leave(const std::string& name) {
    time_.store_before(0, nullptr, 0, 0);  // its target goes
    exchange::Lane* lane = lane_of(name);
    if (lane != nullptr) world_.x->detach_member(*lane);
  }
  // Where the attacked member reads; nullptr: the exchange has taken it for dead.
  exchange::Lane* lane_of(const std::string& name) {
    exchange::Queue* queue = world_.x->find_queue(name);
    exchange::Lane* lane = queue->find_lane(members_.at(name).ring);
    return lane != nullptr && lane->has_member() ? lane : nullptr;
  }

  void publish(std::size_t count) {
    for (; count > 0; --count) {
      const std::string text = "event " + std::to_string(published_ + 1);
      if (publisher_->add("e.x", text, "key " + std::to_string(published_ % 5))) ++published_;
      publisher_->commit();
    }
  }

  void operate(const std::string& name, std::uint8_t how) {
    exchange::Queue& queue = *world_.x->find_queue(name);
    try {
      if (how % 4 == 0) world_.x->pause(queue);
      if (how % 4 == 1) world_.x->resume(queue);
      if (how % 4 == 2) world_.x->purge(queue, world_.now_ns);
      if (how % 4 == 3) world_.x->requeue_dead(queue, {}, world_.now_ns);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::no_space);
    }
  }

  // What an honest member does.
  void behave(const std::string& name, fuzz::Input& input) {
    test::CoreMember& member = members_.at(name);
    const std::uint8_t how = input.byte();
    test::Seen seen;
    if (!member.take(seen)) return;
    const std::uint64_t entry = seen.entry - how / 16 % 3;  // or of one of those before
    switch (how % 8) {
      case 0:
      case 1:
        member.verdict(entry, ring::Verdict::ack);
        break;
      case 2:
        member.nack(entry, input.byte());
        break;
      case 3:
        member.reject(entry, std::string(input.text(4)));
        break;
      case 4:
        member.extend(entry, input.byte());
        break;
      case 5:
        member.ack_through(entry);
        break;
      case 6:
        member.release();
        break;
      default:
        break;  // it keeps it
    }
  }

  // A word of the page that a hostile member writes: where, and what.
  void forge(const std::string& name, int what, fuzz::Input& input) {
    shm::AckPage* page = members_.at(name).page();
    const exchange::Lane* lane = lane_of(name);
    std::byte* base = reinterpret_cast<std::byte*>(page);
    const std::size_t all = ring::ack_page_bytes(slots);
    std::byte* target = base + input.below(all - 8);
    std::size_t bytes = 8;
    std::uint64_t value = input.edgy();
    if (what < 12) {
      shm::Word64* const words[] = {&page->taken, &page->released, &page->acked_through, &page->refused};
      target = reinterpret_cast<std::byte*>(words[what - 8]);
      // Near to what the exchange knows, or anything.
      if (lane != nullptr && input.chance()) value = lane->floor_entry + value % 64 - 16;
    } else if (what < 14) {
      const std::size_t slot = input.below(slots);
      target = base + shm::page_bytes + slot * sizeof(shm::Word64);
      if (lane != nullptr && input.chance()) {
        const std::uint64_t lap = lane->floor_entry / slots + value % 3 - 1;
        value = ring::AckWord::make(lap, static_cast<ring::Verdict>(input.byte() & 15), input.byte(), input.byte());
      }
    } else if (what == 14) {
      const std::size_t reason = input.below(shm::reject_reasons);
      target = base + ring::reasons_offset(slots) + reason * sizeof(shm::RejectReason) + 8 * input.below(16);
      if (lane != nullptr && input.chance()) value = lane->floor_entry + value % 32;
    } else {
      bytes = 1 + input.below(8);
    }
    if (input.byte() % 4 == 0) {
      time_.store_before(1 + input.byte(), target, value, bytes);
    } else {
      std::memcpy(target, &value, bytes);
    }
  }

  void run() {
    world_.now_ns = time_.time_ns;
    for (int round = 0; round < 3; ++round) {
      for (int steps = 0; steps < 64 && world_.x->step(world_.now_ns); ++steps) {
      }
      test::Seen seen;
      while (witness_->take(seen)) {
        ++witnessed_;
        CHECK(seen.payload == "event " + std::to_string(witnessed_));
        CHECK(seen.attempt == 1);
        witness_->verdict(seen.entry, ring::Verdict::ack);
      }
      while (neighbour_->take(seen)) {
        CHECK(seen.attempt >= 1);
        CHECK_MESSAGE(neighbour_saw_.emplace(seen.delivery, seen.attempt).second, "a delivery came twice");
        neighbour_->verdict(seen.entry, ring::Verdict::ack);
      }
      time_.time_ns += ms;
      world_.now_ns = time_.time_ns;
      world_.x->tick(world_.now_ns);
    }
    if (++steps_ % 4 == 0) check_books();
  }

  void check_books() {
    test::check_books(exchange::stat_document(*world_.x, "fuzzed"));
    try {
      test::check_books(exchange::stat_document(*world_.directory, "fuzzed"));
    } catch (const Error& error) {
      CHECK((error.code() == ErrorCode::damaged ||
             error.code() == ErrorCode::layout_mismatch));  // a file of a hostile client is not to be read from
    }
  }

  bool nothing_is_left() {
    for (const char* name : attacked) {
      if (exchange::Exchange::pending(*world_.x->find_queue(name)) != 0) return false;
    }
    return true;
  }

  fuzz::VirtualTime time_;
  test::World world_;
  std::map<std::string, test::CoreMember> members_;  // hostile, by subscription
  std::optional<test::CoreMember> witness_;
  std::optional<test::CoreMember> neighbour_;  // in the group with a hostile one
  std::optional<test::CorePublisher> publisher_;
  std::set<std::pair<std::uint64_t, std::uint32_t>> neighbour_saw_;  // delivery, attempt
  std::uint64_t published_ = 0;
  std::uint64_t witnessed_ = 0;
  std::uint64_t steps_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, std::min<std::size_t>(size, 1024));
  Fixture fixture;
  while (!input.empty()) fixture.step(input);
  fixture.end();
  return 0;
}
