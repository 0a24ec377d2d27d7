// One publisher writes whatever it likes into its ring, between the exchange's steps and in the middle of them; another one
// publishes beside it, and loses nothing. What members get are whole records, whoever wrote them.
#include <map>
#include <optional>

#include "ackring/error.hpp"
#include "lib/ring/record.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace ackring;

constexpr std::uint64_t ring_bytes = 4096;
constexpr std::uint64_t ms = 1'000'000;
constexpr const char* forger_name = "forger";

class Fixture {
 public:
  Fixture() {
    world_.now_ns = time_.time_ns;
    SubscriptionOptions options;
    options.ring_bytes = 32 << 10;
    options.max_in_flight = 128;
    members_.push_back(world_.member("honest", {"h.#"}, options));
    members_.push_back(world_.member("all", {"#"}, options));
    options.group = options.ordered_by_key = true;
    members_.push_back(world_.member("group", {"*.x.#", "h"}, options));
    honest_.emplace(world_.publisher("honest"));
    open();
  }

  void step(fuzz::Input& input) {
    switch (input.byte() % 16) {
      case 0:
      case 1:
        write_record(input, false);
        break;
      case 2:
        write_record(input, true);
        break;
      case 3: {
        const std::size_t at = input.below(ring_bytes);
        const std::string_view bytes = input.text(std::min<std::size_t>(input.byte(), ring_bytes - at));
        std::memcpy(records() + at, bytes.data(), bytes.size());
        break;
      }
      case 4: {
        const std::uint64_t tail = input.edgy();
        page().tail.store(tail, std::memory_order_release);
        break;
      }
      case 5:  // by a multiple of 16, in or out of bounds
        page().tail.store(
            page().tail.load(std::memory_order_relaxed) + 16 * static_cast<std::uint64_t>(input.byte()) - 512,
            std::memory_order_release);
        break;
      case 6:
        page().tail.store(position_, std::memory_order_release);
        break;
      case 7: {  // its own words, the header of the file among them
        const std::size_t at = input.below(shm::page_bytes / 8) * 8;
        const std::uint64_t value = input.edgy();
        std::memcpy(ring_.data() + (at < 512 ? at : at % 512), &value, sizeof value);
        break;
      }
      case 8:
        store_in_the_middle(input);
        break;
      case 9:
        restart();
        break;
      case 10:
        open();
        break;
      case 11:
        time_.time_ns += ms * (1 + input.byte());
        break;
      default:
        break;
    }
    run();
  }

  void end() {
    time_.store_before(0, nullptr, 0, 0);
    run();
    for (const auto& seen : seen_) {
      CAPTURE(seen.first);
      CHECK(seen.second == published_);
    }
    const auto stat = exchange::stat_document(*world_.x, "fuzzed");
    test::check_books(stat);
    try {
      test::check_books(exchange::stat_document(*world_.directory, "fuzzed"));
    } catch (const Error& error) {
      CHECK((error.code() == ErrorCode::damaged ||
             error.code() == ErrorCode::layout_mismatch));  // a file of a hostile client is not to be read from
    }
    CHECK(stat["subscriptions"].size() == 3);
    for (const auto& row : stat["publishers"]) {
      if (row["name"] == "honest") CHECK(row["routed"].get<std::uint64_t>() == published_);
    }
  }

 private:
  [[nodiscard]] shm::IngressRing& page() const { return *ring_.as<shm::IngressRing>(); }
  [[nodiscard]] std::byte* records() const { return ring_.data() + shm::page_bytes; }

  // What the service does with a publisher whose ring is damaged, and what such a client does next.
  void open() {
    time_.store_before(0, nullptr, 0, 0);  // its target goes
    for (const auto& ingress : world_.x->publishers()) {
      if (ingress && ingress->name == forger_name) world_.x->detach_publisher(*ingress);
    }
    world_.tick(1);
    try {
      const auto grant = world_.x->attach_publisher(world_.client, forger_name, ring_bytes);
      ring_ = shm::Segment::attach(*world_.directory, grant.ring_file, shm::SegmentKind::ingress_ring,
                                   shm::Access::read_write);
      position_ = 0;
      sequence_ = grant.next_sequence;
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::busy);  // what it committed before waits
    }
  }

  // A record as it should be, at the position behind the last one; or with one field of its own.
  void write_record(fuzz::Input& input, bool damaged) {
    const std::uint8_t shape = input.byte();
    const bool topic = (shape & 3) == 0;
    static constexpr const char* texts[] = {"h.x", "a", "g.x.y", "h", "bad..topic", "", "#", "a.b.c"};
    const std::string body = topic ? texts[input.below(8)] : std::string(input.half() % 1200, 'x');
    shm::RecordHeader header{};
    header.kind = static_cast<std::uint16_t>(topic ? shm::RecordKind::topic : shm::RecordKind::event);
    header.topic = 1 + input.byte() % 8;
    header.sequence = topic ? 0 : sequence_++;
    header.payload_bytes = static_cast<std::uint32_t>(body.size());
    header.key_bytes = (shape & 4) != 0 ? 8 : 0;
    header.headers_bytes = (shape & 8) != 0 ? 24 : 0;
    shm::TimingInfo times{};
    if (!topic && (shape & 16) != 0) {
      header.flags = shm::flag_timing;
      times.expires_ns = input.edgy();
      times.not_before_ns = input.edgy();
    }
    const std::uint64_t timing_bytes = header.flags != 0 ? sizeof times : 0;
    header.bytes = static_cast<std::uint32_t>(
        ring::record_bytes(body.size() + timing_bytes, header.key_bytes, header.headers_bytes));
    std::uint64_t index = position_ % ring_bytes;
    const auto put = [&](const void* from, std::size_t bytes) {
      bytes = std::min<std::size_t>(bytes, ring_bytes - index);
      std::memcpy(records() + index, from, bytes);
      index += bytes;
    };
    if (header.bytes > ring_bytes - index) {  // padding
      const std::uint64_t padding =
          (ring_bytes - index) | std::uint64_t{static_cast<std::uint16_t>(shm::RecordKind::padding)} << 32;
      put(&padding, sizeof padding);
      position_ += ring_bytes - position_ % ring_bytes;
      index = 0;
    }
    const std::uint32_t bytes = header.bytes;
    if (damaged) {
      const std::uint64_t value = input.edgy();
      const std::size_t at = input.below(sizeof header);
      std::memcpy(reinterpret_cast<std::byte*>(&header) + at, &value, std::min(sizeof value, sizeof header - at));
    }
    put(&header, sizeof header);
    put(&times, timing_bytes);
    put(body.data(), body.size());
    const std::string_view key_and_headers = input.text(shape >> 5);
    put(key_and_headers.data(), key_and_headers.size());
    position_ += bytes;
    page().tail.store(position_, std::memory_order_release);
  }

  void store_in_the_middle(fuzz::Input& input) {
    std::byte* const tail = reinterpret_cast<std::byte*>(&page().tail);
    std::byte* const target = input.chance() ? tail : records() + input.below(ring_bytes - 8);
    const std::size_t bytes = 1 + input.below(8);
    const std::size_t when = 1 + input.byte();
    time_.store_before(when, target, input.edgy(), bytes);
  }

  void restart() {
    time_.store_before(0, nullptr, 0, 0);
    world_.restart();
  }

  void run() {
    world_.now_ns = time_.time_ns;
    if (honest_->publish("h", "honest " + std::to_string(published_ + 1))) ++published_;
    for (int round = 0; round < 3; ++round) {
      for (int steps = 0; steps < 64 && world_.x->step(world_.now_ns); ++steps) check_rings();
      take_all();
      world_.x->tick(world_.now_ns);
    }
  }

  // Every record in a member's ring is whole: its parts lie within it.
  void check_rings() {
    for (const auto& queue : world_.x->queues()) {
      queue->each_lane([](const exchange::Lane& lane) {
        for (std::uint64_t entry = lane.floor_entry; entry != lane.entries; ++entry) {
          const ring::EventParts event = ring::parts(lane.record_of(entry));
          const auto* begin = reinterpret_cast<const std::byte*>(event.header);
          CHECK(event.header->kind == static_cast<std::uint16_t>(shm::RecordKind::event));
          CHECK(begin >= lane.ring.data());
          CHECK(event.header->bytes <= lane.ring.ring_bytes() / 4);
          CHECK(begin + event.header->bytes <= lane.ring.data() + lane.ring.ring_bytes());
          CHECK(event.headers + event.header->headers_bytes <= begin + event.header->bytes);
        }
      });
    }
  }

  void take_all() {
    test::Seen seen;
    for (test::CoreMember& member : members_) {
      while (member.take(seen)) {
        member.verdict(seen.entry, ring::Verdict::ack);
        CHECK(seen.attempt == 1);
        if (seen.publisher != std::to_string(honest_->slot())) continue;  // the exchange says who published it
        const std::uint64_t number = ++seen_[member.name];
        CHECK(seen.payload == "honest " + std::to_string(number));
        CHECK(seen.sequence == number);
      }
    }
  }

  fuzz::VirtualTime time_;
  test::World world_;
  std::vector<test::CoreMember> members_;
  std::optional<test::CorePublisher> honest_;
  std::map<std::string, std::uint64_t> seen_{{"honest", 0}, {"all", 0}, {"group", 0}};
  std::uint64_t published_ = 0;
  shm::Segment ring_;           // of the forger
  std::uint64_t position_ = 0;  // where it writes next, if it writes as it should
  std::uint64_t sequence_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, std::min<std::size_t>(size, 2048));
  Fixture fixture;
  while (!input.empty()) fixture.step(input);
  fixture.end();
  return 0;
}
