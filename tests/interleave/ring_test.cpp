// SpscRing: records, padding at the end of the ring, bytes that are used again after the head moved.
#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "lib/ring/spsc_ring.hpp"
#include "tests/interleave/explorer.hpp"

namespace ackring::test::interleave {
namespace {

using ring::ReadStatus;
using ring::RingReader;
using ring::RingWriter;
using shm::RecordHeader;
using shm::RecordKind;

// How the roles use the ring; the last ones are wrong.
enum class Way { trusted, untrusted, early_tail, early_head, relaxed_head };

// A writer of records of 48 and 64 bytes, and a reader, in a ring of 128: every second record is behind padding, and
// uses bytes again.
class RingScenario : public Scenario {
 public:
  explicit RingScenario(Way way, std::size_t records) : way_(way), records_(records) {
    name(&words_.tail, "tail");
    name(&words_.head, "head");
    name(data_.data(), "ring");
  }
  [[nodiscard]] std::vector<std::string> roles() const override { return {"writer", "reader"}; }

  void reset() override {
    data_.fill(std::byte{0});
    words_.tail.store(0, std::memory_order_relaxed);
    words_.head.store(0, std::memory_order_relaxed);
  }

  void run(std::size_t role) override { role == 0 ? write() : read(); }

 private:
  static constexpr std::uint64_t ring_bytes = 128;
  static std::uint64_t payload_of(std::uint64_t sequence) { return sequence % 2 == 0 ? 16 : 0; }

  void write() {
    RingWriter writer(data_.data(), ring_bytes, &words_.tail, 0, 0);
    for (std::uint64_t sequence = 1; sequence <= records_; ++sequence) {
      RecordHeader header{};
      header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload_of(sequence), 0, 0));
      header.kind = static_cast<std::uint16_t>(RecordKind::event);
      header.sequence = sequence;
      header.payload_bytes = static_cast<std::uint32_t>(payload_of(sequence));
      std::byte* at = writer.claim(header.bytes);
      while (at == nullptr) {
        const auto order = way_ == Way::relaxed_head ? std::memory_order_relaxed : std::memory_order_acquire;
        const std::uint64_t head = words_.head.load(order);
        if (head == writer.head()) pause();
        writer.set_head(head);
        at = writer.claim(header.bytes);
      }
      if (way_ == Way::early_tail) {
        writer.advance(header.bytes);
        writer.commit();
      }
      ring::write_header(at, header, 0);
      const std::array<std::uint64_t, 2> payload{sequence, ~sequence};
      if (header.payload_bytes != 0) shm::shared_copy(at + sizeof header, payload.data(), sizeof payload);
      if (way_ == Way::early_tail) continue;
      writer.advance(header.bytes);
      writer.commit();
    }
  }

  void read() {
    RingReader reader(data_.data(), ring_bytes, &words_.tail, 0);
    for (std::uint64_t sequence = 1; sequence <= records_;) {
      RecordHeader header;
      const std::byte* record = next(reader, header);
      if (record == nullptr) {
        if (!reader.readable()) pause();
        continue;
      }
      expect(header.sequence == sequence, "a record is lost, or read twice");
      expect(header.payload_bytes == payload_of(sequence), "a header is not what was written");
      if (way_ == Way::early_head) words_.head.store(reader.position() + header.bytes, std::memory_order_release);
      if (header.payload_bytes != 0) {
        std::array<std::uint64_t, 2> payload;
        shm::Memory::reading(record + sizeof header, sizeof payload);
        std::memcpy(payload.data(), record + sizeof header, sizeof payload);
        expect(payload[0] == sequence && payload[1] == ~sequence, "a payload is not what was written");
      }
      reader.advance(header.bytes);
      words_.head.store(reader.position(), std::memory_order_release);
      ++sequence;
    }
  }

  const std::byte* next(RingReader& reader, RecordHeader& header) {
    const std::byte* record = nullptr;
    if (way_ == Way::untrusted) {
      expect(reader.refresh(), "an honest tail is refused");
      const ReadStatus status = reader.read_checked(header, record);
      expect(status != ReadStatus::damaged, "an honest record is refused");
      return status == ReadStatus::record ? record : nullptr;
    }
    record = reader.peek();
    if (record != nullptr) ring::read_once(record, header);
    return record;
  }

  struct Words {
    alignas(64) shm::Word64 tail;
    alignas(64) shm::Word64 head;
  };

  Way way_;
  std::uint64_t records_;
  Words words_;
  alignas(64) std::array<std::byte, ring_bytes> data_;
};

TEST_CASE("ring: a trusted writer") {
  RingScenario scenario(Way::trusted, 4);
  check_all("ring, trusted writer", scenario, {.preemptions = 3});
}

TEST_CASE("ring: a writer that is not trusted") {
  RingScenario scenario(Way::untrusted, 4);
  check_all("ring, untrusted writer", scenario, {.preemptions = 3});
}

TEST_CASE("ring canaries") {
  RingScenario early_tail(Way::early_tail, 2);
  check_caught("ring, tail before the record", early_tail, "data race");
  RingScenario early_head(Way::early_head, 4);
  check_caught("ring, head before the payload is read", early_head, "data race");
  RingScenario relaxed_head(Way::relaxed_head, 4);
  check_caught("ring, head not acquired", relaxed_head, "data race");
}

}  // namespace
}  // namespace ackring::test::interleave
