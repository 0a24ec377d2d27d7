#include "lib/exchange/doctor_records.hpp"

#include <cstring>

#include "lib/ring/record.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::RecordKind;

namespace {

// What every record begins with.
struct Start {
  std::uint32_t bytes;
  std::uint16_t kind;
  std::uint16_t flags;
};

template <class T>
bool copy_from(BusFile& file, std::uint64_t offset, T& into) {
  const std::byte* bytes = file.look(offset, sizeof into);
  if (bytes != nullptr) std::memcpy(static_cast<void*>(&into), bytes, sizeof into);
  return bytes != nullptr;
}

std::string check_attempts(BusFile& file, std::uint64_t offset, const shm::AttemptInfo& info) {
  if (info.attempt == 0) return "its attempt is 0";
  if (info.budget_from > info.attempt) return "its budget begins behind its attempt";
  if (info.history > shm::max_history) return std::to_string(info.history) + " past attempts are more than are kept";
  if (info.cause >= shm::delivery_states) return "the cause of its attempt is none";
  std::uint32_t before = 0;
  for (std::size_t i = 0; i < info.history; ++i) {
    shm::PastAttempt past{};
    if (!copy_from(file, offset + i * sizeof past, past)) return "its history is cut short";
    if (past.attempt <= before || past.attempt > info.attempt) return "its past attempts are not in order";
    if (past.cause == 0 || past.cause >= shm::delivery_states) return "a past attempt ended by nothing";
    before = past.attempt;
  }
  return {};
}

// The parts between header and payload. Answers what is wrong.
std::string read_parts(BusFile& file, std::uint64_t offset, Place place, RecordLook& record) {
  const RecordHeader& header = record.header;
  const bool in_later_log = place == Place::retry || place == Place::dead;
  const bool later = (header.flags & shm::flag_later) != 0;
  const bool attempt = (header.flags & shm::flag_attempt) != 0;
  record.timed = (header.flags & shm::flag_timing) != 0;
  if ((header.flags & ~(shm::flag_later | shm::flag_attempt | shm::flag_timing)) != 0)
    return "a flag that means nothing";
  if (later != in_later_log) return later ? "a LaterInfo outside of retry and dead-letter log" : "it has no LaterInfo";
  if (record.timed && attempt) return "it has times although it was delivered";
  std::uint64_t bytes = sizeof header;
  record.untaken = !attempt;
  if (later) {
    shm::LaterInfo info{};
    if (bytes + sizeof info > header.bytes || !copy_from(file, offset + bytes, info))
      return "its LaterInfo is cut short";
    bytes += sizeof info + std::uint64_t{info.reason_bytes};
    record.later_state = value(info.state);
    record.untaken = record.untaken || info.untaken != 0;
    using enum shm::LaterState;
    const auto state = static_cast<shm::LaterState>(record.later_state);
    const bool possible = place == Place::dead
                              ? state == waiting || state == requeued || state == removed
                              : record.later_state <= static_cast<std::uint32_t>(expired) && state != requeued;
    if (!possible) return "its LaterState is " + std::to_string(record.later_state);
  }
  const std::uint64_t parts = offset + sizeof header + (later ? sizeof(shm::LaterInfo) : 0);
  if (record.timed) bytes += sizeof(shm::TimingInfo);
  if (attempt) {
    shm::AttemptInfo info{};
    if (bytes + sizeof info > header.bytes || !copy_from(file, parts, info)) return "its AttemptInfo is cut short";
    bytes += sizeof info + std::uint64_t{info.history} * sizeof(shm::PastAttempt);
    if (bytes > header.bytes) return "its history is cut short";
    if (std::string wrong = check_attempts(file, parts + sizeof info, info); !wrong.empty()) return wrong;
  }
  bytes += std::uint64_t{header.payload_bytes} + header.key_bytes + header.headers_bytes;
  if (ring::align_record(bytes) != header.bytes) {
    return "its parts take " + std::to_string(ring::align_record(bytes)) + " bytes, it has " +
           std::to_string(header.bytes);
  }
  if (header.delivery == 0) return "it has no delivery number";
  if (header.publisher >= shm::max_publishers) return "its publisher is " + std::to_string(header.publisher);
  return {};
}

}  // namespace

RecordLook look_at_record(BusFile& file, std::uint64_t offset, std::uint64_t available, Place place) {
  RecordLook record;
  Start start{};
  if (available < sizeof start || !copy_from(file, offset, start)) {
    record.damage = "it is cut short";
    return record;
  }
  record.bytes = start.bytes;
  const auto kind = static_cast<RecordKind>(start.kind);
  if (start.bytes < shm::record_alignment || start.bytes % shm::record_alignment != 0 || start.bytes > available) {
    record.damage = "its length is " + std::to_string(start.bytes) + ", of " + std::to_string(available);
  } else if (kind == RecordKind::padding && place == Place::ring) {
    record.what = RecordLook::What::padding;
  } else if (kind == RecordKind::segment_end && place != Place::ring) {
    record.what = RecordLook::What::segment_end;
  } else if (kind != RecordKind::event) {
    record.damage = "its kind is " + std::to_string(start.kind);
  } else if (start.bytes < sizeof(RecordHeader) || !copy_from(file, offset, record.header)) {
    record.damage = "its length is " + std::to_string(start.bytes) + ", less than that of a header";
  } else {
    record.damage = read_parts(file, offset, place, record);
    if (record.damage.empty()) record.what = RecordLook::What::event;
  }
  return record;
}

}  // namespace ackring::exchange
