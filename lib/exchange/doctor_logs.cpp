// Doctor: the logs of a subscription, and the counts that a walk over them gives.
#include <algorithm>

#include "lib/exchange/doctor_subscription.hpp"
#include "lib/log/segment_log.hpp"

namespace ackring::exchange {

using shm::LaterState;
using shm::TransactionKind;

namespace {

bool possible(std::uint64_t position) {
  const std::uint64_t offset = position & 0xffffffff;
  return position >= log::first_position && offset >= shm::log_data_offset && offset % shm::record_alignment == 0;
}

bool leaves_retry_log(TransactionKind kind) {
  using enum TransactionKind;
  return kind == release || kind == complete || kind == forget || kind == expire || kind == give_up_later;
}

bool leaves_dead_log(TransactionKind kind) {
  return kind == TransactionKind::requeue || kind == TransactionKind::remove;
}

FileKind kind_of(Place place) {
  return place == Place::backlog ? FileKind::backlog : place == Place::retry ? FileKind::retry : FileKind::dead;
}

std::string text_of(std::uint64_t position) {
  return std::to_string(position >> 32) + ":" + std::to_string(position & 0xffffffff);
}

}  // namespace

// Opens its segments: records of a log never change, and an open file outlives its name.
void SubscriptionLook::open_log(Log& log) {
  log.segments.clear();
  log.seen_of_n = log.events = log.bytes = log.delayed_events = log.delayed_bytes = 0;
  log.timed = false;
  log.whole = false;
  if (log.head == 0) log.head = log::first_position;
  if (log.tail == 0) log.tail = log::first_position;
  if (!possible(log.head) || !possible(log.tail) || log.head > log.tail) {
    look_.violation(state_file_.name(), log.infix + "_positions",
                    "its " + log.infix + " goes from " + text_of(log.head) + " to " + text_of(log.tail));
    return;
  }
  const std::uint64_t first = log.head >> 32;
  const std::uint64_t last = log.tail >> 32;
  log.whole = true;
  for (const std::string& name : names_) {
    const BusFileName parsed = parse_file_name(name);
    if (parsed.kind != kind_of(log.place) || name.ends_with(".tmp")) continue;
    if (parsed.number < first) {
      look_.leftover(name, "released", "a segment below the head of its log, which begins in " + std::to_string(first));
      continue;
    }
    if (log.head == log.tail || parsed.number > last) continue;  // nothing in it counts
    BusFile file = look_.open(name);
    if (!file.valid() || !look_.check_header(file, shm::SegmentKind::log, parsed.number, shm::log_data_offset, false)) {
      log.whole = false;
      continue;
    }
    log.segments.emplace(parsed.number, std::move(file));
  }
  if (log.head == log.tail || !log.whole) return;
  if (log.segments.size() == last - first + 1) return;
  std::uint64_t missing = first;
  while (log.segments.contains(missing)) ++missing;
  log.whole = false;
  look_.violation(state_file_.name(), log.infix + "_segment",
                  "segment " + std::to_string(missing) + " of its " + log.infix + " is missing, of " +
                      std::to_string(first) + " to " + std::to_string(last));
}

void SubscriptionLook::walk_log(Log& log) {
  if (!log.whole || log.head == log.tail) return;
  std::uint64_t position = log.head;
  while (position < log.tail) {
    const std::uint64_t segment = position >> 32;
    const std::uint64_t offset = position & 0xffffffff;
    BusFile& file = log.segments.at(segment);
    const bool in_last = segment == log.tail >> 32;
    const std::uint64_t end = in_last ? log.tail & 0xffffffff : file.bytes();
    if (end > file.bytes() || offset > end) {
      look_.violation(file.name(), "size",
                      "it has " + std::to_string(file.bytes()) + " bytes, its log goes on to " + text_of(log.tail));
      log.whole = false;
      return;
    }
    const std::uint64_t next_segment = (segment + 1) << 32 | shm::log_data_offset;
    if (!in_last && end - offset < shm::record_alignment) {
      position = next_segment;
      continue;
    }
    const RecordLook record = look_at_record(file, offset, end - offset, log.place);
    if (record.what == RecordLook::What::segment_end && !in_last) {
      position = next_segment;
      continue;
    }
    if (record.what != RecordLook::What::event) {
      const std::string why = record.damage.empty() ? "the segment ends before its log" : record.damage;
      look_.violation(file.name(), "record", "the record at " + text_of(position) + ": " + why);
      log.whole = false;
      return;
    }
    note_event(record, file.name());
    count_record(log, record, position);
    position += record.bytes;
  }
}

void SubscriptionLook::count_record(Log& log, const RecordLook& record, std::uint64_t position) {
  // Of an open transaction only what the block knows of counts.
  if (log.sink_n == intent_.n && intent_.n != 0 && position >= log.sink_base) {
    const std::uint64_t known = counted() ? log.of_n : 0;
    if (log.seen_of_n++ >= known) {
      open_transaction_ = true;
      return;
    }
  }
  if (has_left(log, record, position)) return;
  ++log.events;
  log.bytes += record.bytes;
  log.timed = log.timed || record.timed;
  if (log.place == Place::retry && record.untaken) {
    ++log.delayed_events;
    log.delayed_bytes += record.bytes;
  }
  deliveries_.push_back(record.header.delivery);
}

// A record of a retry or dead-letter log is gone when its state says so, or when a move that counts is about to say so.
bool SubscriptionLook::has_left(const Log& log, const RecordLook& record, std::uint64_t position) {
  if (log.place == Place::backlog) return false;
  if (record.later_state != static_cast<std::uint32_t>(LaterState::waiting)) return true;
  const bool leaves = log.place == Place::retry ? leaves_retry_log(intent_.kind) : leaves_dead_log(intent_.kind);
  const bool moves = leaves && counted() && intent_.n != 0 && intent_.source == id_ && intent_.from == position;
  if (moves) open_transaction_ = true;
  return moves;
}

}  // namespace ackring::exchange
