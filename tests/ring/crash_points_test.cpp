// A writer that dies before each of its shared stores: a fresh reader sees exactly the records committed before.
#include <doctest/doctest.h>

#include "lib/ring/ack_table.hpp"
#include "lib/shm/versioned.hpp"
#include "tests/ring/ring_stress.hpp"

namespace ackring::test {
namespace {

struct Death {};

// Throws before the n-th shared store of this thread.
class DieBefore : public shm::EnvironmentHook {
 public:
  explicit DieBefore(std::uint64_t n) : left_(n) { shm::Environment::hook = this; }
  ~DieBefore() override { shm::Environment::hook = nullptr; }
  DieBefore(const DieBefore&) = delete;
  DieBefore& operator=(const DieBefore&) = delete;
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (left_-- == 0) throw Death{};
  }
  std::uint64_t now_ns() override { return 0; }

 private:
  std::uint64_t left_;
};

// Writes records [first, end) of the plan with a commit after every `batch`; each piece is a shared store. `committed`
// is the sequence behind the last commit that was reached.
void write_records(const RingMemory& memory, const StressPlan& plan, std::uint64_t end, std::uint64_t batch,
                   std::uint64_t& committed) {
  RingWriter writer = memory.writer();
  for (std::uint64_t sequence = committed; sequence != end; ++sequence) {
    const RecordHeader header = event_header(sequence, stress_payload(plan, sequence));
    std::byte* at = writer.claim(header.bytes);
    REQUIRE(at != nullptr);
    for (std::uint64_t offset = 0; offset < header.payload_bytes; offset += 8) {
      const std::uint64_t word = stress_word(plan, sequence, offset);
      shm::shared_copy(at + sizeof header + offset, &word, std::min<std::uint64_t>(8, header.payload_bytes - offset));
    }
    shm::shared_copy(at, &header, sizeof header);
    writer.advance(header.bytes);
    if ((sequence + 1 - plan.first) % batch == 0 || sequence + 1 == end) {
      writer.commit();
      committed = sequence + 1;
    }
  }
}

// Number of records a fresh reader finds, each checked, from the head on.
std::uint64_t count_records(const RingMemory& memory, const StressPlan& plan, bool checked) {
  RingReader reader = memory.reader();
  std::uint64_t count = 0;
  while (true) {
    RecordHeader header;
    const std::byte* record = nullptr;
    if (checked) {
      REQUIRE(reader.refresh());
      const ReadStatus status = reader.read_checked(header, record);
      REQUIRE(status != ReadStatus::damaged);
      if (status == ReadStatus::empty) return count;
    } else {
      record = reader.peek();
      if (record == nullptr) return count;
      ring::read_once(record, header);
    }
    REQUIRE(check_record(plan, plan.first + count, header, record) == "");
    reader.advance(header.bytes);
    ++count;
  }
}

TEST_CASE("a writer may die before any store of claim, advance and commit") {
  constexpr std::uint64_t ring_bytes = 4096;
  constexpr std::uint64_t records = 24;
  for (const std::uint64_t start :
       {ring_bytes - 16, ring_bytes - 32, ring_bytes - 400, std::uint64_t{0} - 16, std::uint64_t{0} - 208}) {
    for (const std::uint64_t batch : {1, 3, 24}) {
      CAPTURE(start);
      CAPTURE(batch);
      StressPlan plan;
      plan.first = 1;
      plan.seed = 3;
      plan.largest = 90;
      std::uint64_t deaths = 0;
      for (std::uint64_t n = 0;; ++n) {
        CAPTURE(n);
        RingMemory memory(ring_bytes, start);
        std::memset(memory.data(), 0xa5, ring_bytes);  // what an earlier lap left
        std::uint64_t committed = plan.first;
        bool died = false;
        try {
          DieBefore hook(n);
          write_records(memory, plan, plan.first + records, batch, committed);
        } catch (const Death&) {
          died = true;
          ++deaths;
        }
        REQUIRE(count_records(memory, plan, true) == committed - plan.first);
        REQUIRE(count_records(memory, plan, false) == committed - plan.first);
        // The successor starts at the tail and writes the rest.
        if (committed != plan.first + records) write_records(memory, plan, plan.first + records, batch, committed);
        REQUIRE(count_records(memory, plan, true) == records);
        if (!died) break;
      }
      CHECK(deaths > records * 3);  // the pieces, the header and the commit of each; and one padding record
    }
  }
}

TEST_CASE("a member may die before any store of its verdicts: what X sees is what was given") {
  for (std::uint64_t n = 0; n <= 5; ++n) {
    CAPTURE(n);
    alignas(shm::page_bytes) static std::array<std::byte, ring::ack_page_bytes(8)> bytes;
    bytes.fill(std::byte{0});
    auto& page = *reinterpret_cast<shm::AckPage*>(bytes.data());
    page.slots = 8;
    ring::AckWriter writer(&page);
    const ring::AckReader reader(&page, 8);
    bool died = false;
    try {
      DieBefore hook(n);
      writer.taken(3);
      writer.verdict(0, ring::Verdict::ack);
      writer.verdict(1, ring::Verdict::nack);  // two stores: the word, then `refused`
      writer.ack_through(3);
    } catch (const Death&) {
      died = true;
    }
    CHECK(died == (n < 5));
    CHECK(reader.taken() == (n > 0 ? 3 : 0));
    CHECK((reader.verdict(0) == ring::Verdict::ack) == (n > 1));
    CHECK((reader.verdict(1) == ring::Verdict::nack) == (n > 2));
    CHECK(reader.refused() == (n > 3 ? 2 : 0));
    CHECK(reader.acked_through() == (n > 4 ? 3 : 0));
  }
}

TEST_CASE(
    "a member may die before any store of an extended reject: X sees nothing, an extension, or the whole reject") {
  bool done = false;
  for (std::uint64_t n = 0; !done; ++n) {
    CAPTURE(n);
    REQUIRE(n < 40);
    alignas(shm::page_bytes) static std::array<std::byte, ring::ack_page_bytes(8)> bytes;
    bytes.fill(std::byte{0});
    auto& page = *reinterpret_cast<shm::AckPage*>(bytes.data());
    page.slots = 8;
    ring::AckWriter writer(&page);
    const ring::AckReader reader(&page, 8);
    try {
      DieBefore hook(n);
      writer.extend(3, 20);
      writer.reject(3, "no such customer");
      done = true;
    } catch (const Death&) {
    }
    const ring::AckSeen seen = reader.seen(3);
    const std::string reason = reader.reason(3, seen.delay);
    if (seen.verdict == ring::Verdict::reject) {
      CHECK(reason == "no such customer");
      CHECK(reader.refused() == 4);
    } else {
      CHECK(reason.empty());
      CHECK(seen.verdict == (n == 0 ? ring::Verdict::none : ring::Verdict::extend));
      CHECK(reader.refused() == (n < 2 ? 0 : 4));
    }
    CHECK((seen.verdict == ring::Verdict::reject) >= done);
  }
}

TEST_CASE("a writer of a versioned block may die before either store: the old block counts") {
  struct Block {
    std::array<std::uint64_t, 8> words;
  };
  for (std::uint64_t n = 0; n <= 2; ++n) {
    shm::Word64 version;
    version.store(0, std::memory_order_relaxed);  // relaxed: one thread
    std::array<Block, 2> copies{};
    Block block{};
    block.words.fill(1);
    shm::write_block(version, copies, block);
    block.words.fill(2);
    try {
      DieBefore hook(n);
      shm::write_block(version, copies, block);
    } catch (const Death&) {
    }
    CHECK(shm::read_block(version, copies).words[0] == (n < 2 ? 1 : 2));
    shm::write_block(version, copies, block);  // the successor's redo
    CHECK(shm::read_block(version, copies).words[7] == 2);
  }
}

}  // namespace
}  // namespace ackring::test
