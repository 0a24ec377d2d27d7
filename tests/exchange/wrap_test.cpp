// A whole exchange whose counters begin close before 2^32, 2^63 or 2^64, and pass them: ring positions, entries, sequences,
// delivery numbers, transactions, log segments, files (F42). Nobody gets there by counting, so the files are made that way.
#include <map>

#include "tests/exchange/retry_world.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

struct Start {
  std::uint64_t position;     // of both rings
  std::uint64_t entry;        // of the member ring
  std::uint64_t sequence;     // of the publisher
  std::uint64_t delivery;     // and how much of everything was counted
  std::uint64_t transaction;  // the last one
  std::uint32_t segment;      // of the logs
  std::uint64_t file;         // the last one given a number; an intent has 56 bits for it
};

constexpr std::uint64_t two_32 = std::uint64_t{1} << 32;
constexpr std::uint64_t two_63 = std::uint64_t{1} << 63;
constexpr std::uint64_t two_61 = std::uint64_t{1} << 61;

// What is counted one by one can't pass 2^64, and transactions of a shard not 2^62: that takes more than a hundred years.
// Positions and entries may.
const std::map<std::string, Start> starts = {
    {"nothing", {0, 0, 0, 0, 0, 1, 10}},
    {"2^32", {two_32 - 4096, two_32 - 50, two_32 - 60, two_32 - 70, two_32 - 80, 0xffff, two_32 - 5}},
    {"2^63", {two_63 - 4096, two_63 - 50, two_63 - 60, two_63 - 70, two_61 - 80, 0x7fffffff, two_32 - 5}},
    {"2^64",
     {0 - std::uint64_t{4096}, 0 - std::uint64_t{50}, two_63 - 1, two_63 - 1, two_61 - 1, 0xfffffff0, two_32 - 5}},
};

template <class Page, class Change>
void change(World& world, const std::string& file, shm::SegmentKind kind, Change change) {
  const shm::Segment segment = shm::Segment::attach(*world.directory, file, kind, shm::Access::read_write);
  change(*segment.as<Page>());
}

void set(shm::Word64& word, std::uint64_t value) { word.store(value, std::memory_order_relaxed); }

// A bus that has come far, with one publisher and one member that have nothing outstanding.
class Far {
 public:
  Far(const Start& start, bool group) : start_(start) {
    SubscriptionOptions options = exact();
    options.name = "s";
    options.patterns = {"#"};
    options.ring_bytes = 4096;
    options.max_in_flight = 16;
    options.group = group;
    options.backoff_initial = options.backoff_max = std::chrono::milliseconds(20);
    set(world_.x->page().next_file, start.file);
    const auto publisher = world_.x->attach_publisher(world_.client, "p", 16384);
    const auto member = world_.x->attach_member(world_.client, options, false, {});
    const std::string state = "sub." + std::to_string(member.queue->id) + ".state";
    world_.x.reset();
    change<shm::ExchangeSegment>(world_, "exchange", shm::SegmentKind::exchange, [&](auto& page) {
      for (std::uint64_t n = start.transaction - (start.transaction != 0); n <= start.transaction; ++n) {
        set(page.intents[0][n & 1].n, n);
      }
    });
    change<shm::IngressRing>(world_, publisher.ring_file, shm::SegmentKind::ingress_ring, [&](auto& page) {
      page.start_position = start.position;
      set(page.tail, start.position);
      set(page.events, start.sequence);
    });
    change<shm::IngressCursor>(world_, publisher.cursor_file, shm::SegmentKind::ingress_cursor, [&](auto& page) {
      set(page.shards[0].consumed, start.position);
      for (shm::IngressBlock& block : page.shards[0].blocks) {
        block.consumed = start.position;
        block.sequence = block.routed = start.sequence;
        block.n = start.transaction;
      }
    });
    change<shm::SubscriptionSegment>(world_, state, shm::SegmentKind::subscription, [&](auto& page) {
      const std::uint64_t log = std::uint64_t{start.segment} << 32 | shm::log_data_offset;
      for (shm::Word64* tail : {&page.backlog_tail, &page.retry_tail, &page.dead_tail}) set(*tail, log);
      for (shm::SubscriptionBlock& block : page.blocks) {
        block.n = start.transaction;
        block.matched = block.delivered = block.totals[1] = start.delivery;
        block.entries = start.entry;
        block.backlog_head = block.retry_head = block.dead_head = block.dead_published = log;
      }
    });
    change<shm::MemberRing>(world_, member.ring_file, shm::SegmentKind::member_ring, [&](auto& page) {
      page.start_position = start.position;
      page.start_entry = start.entry;
      set(page.tail, start.position);
      set(page.timed_out_below, start.entry);
      set(page.revoked, start.entry);
      for (shm::RingBlock& block : page.blocks) {
        block.floor_entry = start.entry;
        block.floor_position = start.position;
      }
    });
    change<shm::AckPage>(world_, member.ack_file, shm::SegmentKind::ack_page, [&](auto& page) {
      page.start_entry = start.entry;
      for (shm::Word64* word : {&page.taken, &page.acked_through, &page.refused, &page.released}) {
        set(*word, start.entry);
      }
    });
    world_.x = std::make_unique<exchange::Exchange>(*world_.directory);
    exchange::MemberGrant again = member;
    again.entry = start.entry;
    again.position = start.position;
    again.queue = world_.x->find_queue("s");
    again.lane = group ? again.queue->members.front().get() : &again.queue->lane;
    member_ = std::make_unique<CoreMember>(*world_.directory, again);
    exchange::PublisherGrant go_on = publisher;
    go_on.next_sequence = start.sequence + 1;
    publisher_ = std::make_unique<CorePublisher>(*world_.directory, go_on);
  }

  void run() {
    for (int round = 0; round < 40; ++round) {
      for (int i = 0; i < 10; ++i)
        published_ += publisher_->publish("a", std::string(static_cast<std::size_t>(i), 'x'));
      world_.run();
      if (round % 3 != 0) consume();  // otherwise its ring fills, and the backlog is used
      world_.tick();
      if (round % 5 == 4) world_.restart();
    }
    for (int i = 0; i < 400; ++i) {
      consume();
      world_.tick();
    }
    check();
  }

 private:
  void consume() {
    Seen seen;
    while (member_->take(seen)) {
      if (seen.attempt == 1) {
        CHECK(seen.sequence == start_.sequence + ++first_);
        CHECK(seen.delivery == start_.delivery + first_);
      }
      CHECK(seen.payload.size() == (seen.sequence - start_.sequence - 1) % 10);
      CHECK(seen.attempt == ++attempts_[seen.sequence]);
      const std::uint64_t kind = (seen.sequence - start_.sequence) % 12;
      if (kind == 5) {
        CHECK(member_->reject(seen.entry, "no"));
        ++rejected_;
      } else if (kind == 7 && seen.attempt < 3) {
        CHECK(member_->verdict(seen.entry, ring::Verdict::nack));
      } else if (kind == 9 && seen.attempt == 1) {
        CHECK(member_->extend(seen.entry, 1));  // and then it times out
        ++silent_;
      } else {
        CHECK(member_->verdict(seen.entry, ring::Verdict::ack));
      }
      if (kind == 9 && seen.attempt == 1) member_->release();
    }
  }

  void check() {
    const auto stat = world_.stat();  // the books are checked there, of the live bus and of its files
    const auto row = row_of(stat, "s");
    CHECK(published_ == 400);
    CHECK(first_ == published_);
    CHECK(row["matched"] == start_.delivery + published_);
    CHECK(row["acked"] == start_.delivery + published_ - rejected_);
    CHECK(row["rejected"] == rejected_);
    CHECK(row["timed_out"] == silent_);
    CHECK(row["dlq_size"] == rejected_);
    CHECK(row["lag"] == 0);
    CHECK(dead_letters(world_, "s").size() == rejected_);
    CHECK(world_.x->requeue_dead(*world_.x->find_queue("s"), {}, world_.now_ns).done == rejected_);
    for (int i = 0; i < 10; ++i) world_.tick();
    Seen seen;
    std::uint64_t back = 0;
    while (member_->take(seen)) {
      CHECK((seen.sequence - start_.sequence) % 12 == 5);
      CHECK(member_->verdict(seen.entry, ring::Verdict::ack));
      if (++back % 8 == 0) world_.tick();
    }
    CHECK(back == rejected_);
    world_.tick();
    world_.restart();
    CHECK(row_of(world_.stat(), "s")["acked"] == start_.delivery + published_);
    for (const exchange::Notice& notice : world_.x->report()) {
      CHECK(notice.text.find("damaged") == std::string::npos);
      CHECK(notice.text.find("quarantined") == std::string::npos);
    }
  }

  const Start start_;
  World world_;
  std::unique_ptr<CoreMember> member_;
  std::unique_ptr<CorePublisher> publisher_;
  std::map<std::uint64_t, std::uint32_t> attempts_;
  std::uint64_t published_ = 0;
  std::uint64_t first_ = 0;
  std::uint64_t rejected_ = 0;
  std::uint64_t silent_ = 0;
};

}  // namespace

TEST_CASE("an exchange whose counters pass 2^32, 2^63 and 2^64 does what any other does (F42)") {
  for (const auto& far : starts) {
    for (const bool group : {false, true}) {
      CAPTURE(far.first);
      CAPTURE(group);
      Far(far.second, group).run();
    }
  }
}
