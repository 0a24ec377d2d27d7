// Doctor: the directory of publishers, their rings and cursors. A ring is its publisher's to write: nothing in it is believed.
#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "ackring/error.hpp"
#include "ackring/limits.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/exchange/dead_letter_topic.hpp"
#include "lib/exchange/doctor_look.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/ring/record.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

using shm::PublisherState;
using shm::RecordKind;

namespace {

struct Slot {
  std::uint16_t number = 0;
  std::uint64_t incarnation = 0;
  std::uint64_t client = 0;
  bool own = false;
  std::string name;
  BusFile cursor;
  BusFile ring;
  shm::IngressCursor cursor_page;
  std::uint64_t topics = 0;
  shm::IngressBlock block{};  // of the shard that is looked at
};

// What lies in the ring between `consumed` and its tail.
struct InRing {
  std::uint64_t events = 0;
  std::uint64_t topics = 0;
};

std::string text_of(BusFile& file, std::uint64_t offset, std::uint64_t bytes) {
  const std::byte* text = file.look(offset, bytes);
  return text == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(text), bytes);
}

// One record of the ring. Answers what is wrong with it; `bytes` says where the next one is.
std::string check_record(Slot& slot, std::uint64_t offset, std::uint64_t rest, std::uint64_t available, InRing& found,
                         std::uint64_t& bytes) {
  shm::RecordHeader header{};
  const std::uint64_t readable = std::min<std::uint64_t>(rest, sizeof header);
  const std::byte* record = slot.ring.look(offset, readable);
  if (record == nullptr) return "it is cut short";
  std::memcpy(static_cast<void*>(&header), record, readable);
  bytes = header.bytes;
  if (header.kind == static_cast<std::uint16_t>(RecordKind::padding)) {
    return header.bytes == rest && rest <= available ? std::string() : "its padding does not end with the ring";
  }
  if (readable < sizeof header || !ring::plausible(header, available)) {
    return "its header is not a possible one: kind " + std::to_string(header.kind) + ", " +
           std::to_string(header.bytes) + " bytes of " + std::to_string(available);
  }
  const std::uint64_t defined = slot.topics + found.topics;
  if (header.kind == static_cast<std::uint16_t>(RecordKind::topic)) {
    if (header.topic == 0 || header.topic > defined + 1)
      return "it defines topic " + std::to_string(header.topic) + " out of turn";
    if (header.topic == defined + 1) ++found.topics;
    const std::string text = text_of(slot.ring, offset + sizeof header, header.payload_bytes);
    return control::valid_topic(text) ? std::string() : "it defines a topic that is none";
  }
  ++found.events;
  if (header.topic == 0 || header.topic > defined)
    return "it is of topic " + std::to_string(header.topic) + ", which was not defined";
  return {};
}

InRing walk(Look& look, Slot& slot, std::uint64_t ring_bytes, std::uint64_t tail) {
  InRing found;
  slot.ring.forget();
  std::uint64_t position = slot.block.consumed;
  while (position != tail) {
    const std::uint64_t index = position & (ring_bytes - 1);
    const std::uint64_t rest = ring_bytes - index;
    std::uint64_t bytes = 0;
    const std::string wrong =
        check_record(slot, shm::page_bytes + index, rest, std::min(tail - position, rest), found, bytes);
    if (!wrong.empty()) {
      look.violation(slot.ring.name(), "record", "the record at position " + std::to_string(position) + ": " + wrong);
      if (bytes == 0 || bytes % shm::record_alignment != 0 || bytes > tail - position) break;
    }
    position += bytes;
  }
  return found;
}

bool holds_lock(const Look& look, std::uint64_t client) {
  try {
    const std::string name = "client." + std::to_string(client) + ".lock";
    return look.directory.exists(name) && shm::is_locked(look.directory.open(name, false).get());
  } catch (const Error&) {
    return false;
  }
}

// As one shard sees it.
void check_ring(Look& look, Slot& slot, std::size_t shard) {
  shm::IngressRing page;
  const std::string& name = slot.ring.name();
  if (!look.check_header(slot.ring, shm::SegmentKind::ingress_ring, slot.number, sizeof page, false)) return;
  if (!slot.ring.read_as(0, page)) return;
  if (!std::has_single_bit(page.ring_bytes) || page.ring_bytes < limits::min_ring_bytes ||
      page.ring_bytes > slot.ring.bytes() - shm::page_bytes) {
    look.violation(name, "ring_bytes", "a ring of " + std::to_string(page.ring_bytes) + " bytes does not fit its file");
    return;
  }
  const std::uint64_t tail = value(page.tail);
  const std::uint64_t consumed = slot.block.consumed;
  if (tail - consumed > page.ring_bytes || tail % shm::record_alignment != 0) {
    look.violation(name, "tail",
                   "its tail is " + std::to_string(tail) + ", with " + std::to_string(consumed) +
                       " consumed of a ring of " + std::to_string(page.ring_bytes));
    return;
  }
  if (static_cast<std::int64_t>(consumed - page.start_position) < 0) {
    look.violation(name, "start_position",
                   "it began at " + std::to_string(page.start_position) + ", behind what is consumed");
  }
  const bool quarantined = value(slot.cursor_page.shards[0].quarantined) != 0;
  if (quarantined && shard == 0)
    look.violation(name, "quarantined", "the exchange found it damaged and reads it no more");
  const InRing found = walk(look, slot, page.ring_bytes, tail);
  const std::uint64_t events = value(page.events);
  if (shard == 0) look.report.events += found.events;
  const std::uint64_t counted = shm::events_of(slot.block) + found.events;
  // Who dies between his two stores leaves `events` ahead of the tail (F1); so does X with its own publisher.
  const bool ahead = events > counted && (!holds_lock(look, slot.client) || slot.own);
  if (events != counted && !ahead && !quarantined) {
    look.violation(name, "events",
                   "committed " + std::to_string(events) + ", but routed " + std::to_string(slot.block.routed) +
                       " + unroutable " + std::to_string(slot.block.unroutable) + " + duplicates " +
                       std::to_string(slot.block.duplicates) + " + discarded " + std::to_string(slot.block.discarded) +
                       " + in the ring " + std::to_string(found.events) + " = " + std::to_string(counted));
  }
}

// What a shard says of how far it has come.
void check_position(Look& look, const Slot& slot, std::size_t shard) {
  const std::string& name = slot.cursor.name();
  const std::uint64_t n = look.last_intent(shard).n;
  if (slot.block.n > n)
    look.violation(name, "n",
                   "it was counted in transaction " + std::to_string(slot.block.n) + " of " + std::to_string(n));
  const std::uint64_t word = value(slot.cursor_page.shards[shard].consumed);
  // The word follows the block; a crash between the two leaves it behind.
  if (word != slot.block.consumed && (slot.block.n != n || static_cast<std::int64_t>(slot.block.consumed - word) < 0)) {
    look.violation(name, "consumed",
                   "its word says " + std::to_string(word) + ", its block " + std::to_string(slot.block.consumed));
  }
}

void check_cursor(Look& look, Slot& slot) {
  const std::string& name = slot.cursor.name();
  const shm::ShardCursor& page = slot.cursor_page.shards[0];
  if (!look.has_had(value(page.sink.n)))
    look.violation(name, "sink",
                   "its sink is of transaction " + std::to_string(value(page.sink.n)) + ", which the bus has not had");
  if (!slot.own && value(page.sink.n) != 0)
    look.violation(name, "sink", "it has a sink, but the exchange does not write its ring");
  if (value(page.quarantined) > 1) look.violation(name, "quarantined", "it is neither 0 nor 1");
  if (value(page.not_polled) >> shm::max_shards != 0)
    look.violation(name, "not_polled", "it names shards that there can't be");
  if (slot.topics > limits::topics || shm::page_bytes + slot.topics * sizeof(std::uint32_t) > slot.cursor.bytes()) {
    look.violation(name, "topics", "a map of " + std::to_string(slot.topics) + " topics does not fit its file");
    slot.topics = 0;
  }
  slot.cursor.forget();
  for (std::uint64_t i = 0; i < slot.topics; ++i) {
    const std::byte* entry = slot.cursor.look(shm::page_bytes + i * sizeof(std::uint32_t), sizeof(std::uint32_t));
    std::uint32_t number = 0;
    if (entry != nullptr) std::memcpy(&number, entry, sizeof number);
    if (number != shm::no_topic && number != shm::denied_topic) look.topics_used.emplace(number, name);
  }
}

// False: it moved meanwhile.
bool check_files(Look& look, Slot& slot) {
  const auto stamp = [&] {
    std::vector<std::uint64_t> words;
    stamp_intents(look, words);
    for (std::size_t shard = 0; shard < shm::max_shards; ++shard) {
      const std::size_t at = offsetof(shm::IngressCursor, shards) + shard * sizeof(shm::ShardCursor);
      stamp_words(slot.cursor, at + offsetof(shm::ShardCursor, consumed), 1, words);
      stamp_words(slot.cursor, at + offsetof(shm::ShardCursor, version), 3, words);
    }
    return words;
  };
  const std::vector<std::uint64_t> before = stamp();
  if (!look.check_header(slot.cursor, shm::SegmentKind::ingress_cursor, slot.number, sizeof(shm::IngressCursor), true))
    return true;
  if (!slot.cursor.read_as(0, slot.cursor_page)) return false;
  slot.topics = value(slot.cursor_page.shards[0].topics);
  check_cursor(look, slot);
  const std::uint32_t shards = value(look.page->shards) | 1;
  for (std::size_t shard = 0; shard < shm::max_shards; ++shard) {
    if ((shards >> shard & 1) == 0) continue;
    const shm::ShardCursor& cursor = slot.cursor_page.shards[shard];
    slot.block = cursor.blocks[value(cursor.version) & 1];
    look.counted_through[slot.number][shard] = slot.block.n;
    check_position(look, slot, shard);
    if (slot.ring.valid()) check_ring(look, slot, shard);
  }
  return stamp() == before;
}

void check_name(Look& look, const Slot& slot, PublisherState state, const char* text, std::set<std::string>& names) {
  const std::string where = "publisher " + std::to_string(slot.number);
  if (text[shm::name_bytes - 1] != 0) {
    look.violation("exchange", "publisher_name", where + ": its name has no end");
    return;
  }
  const std::string name = text;
  if (state == PublisherState::exchange && name != letters_name) {
    look.violation("exchange", "publisher_name", where + ": the exchange's own is called '" + name + "'");
  }
  if (state == PublisherState::anonymous && name != "@" + std::to_string(slot.number)) {
    look.violation("exchange", "publisher_name", where + ": an anonymous one is called '" + name + "'");
  }
  try {
    if (state != PublisherState::exchange && state != PublisherState::anonymous) shm::check_name("publisher", name);
  } catch (const Error& error) {
    look.violation("exchange", "publisher_name", where + ": " + error.what());
  }
  if (state != PublisherState::anonymous && !names.insert(name).second) {
    look.violation("exchange", "publisher_name", where + ": '" + name + "' is the name of another one, too");
  }
}

}  // namespace

void check_publishers(Look& look) {
  std::set<std::string> names;
  std::size_t own = 0;
  for (std::size_t i = 0; i < shm::max_publishers; ++i) {
    const shm::PublisherEntry& entry = look.page->publishers[i];
    const auto state = static_cast<PublisherState>(value(entry.state));
    const std::string where = "publisher " + std::to_string(i);
    Slot slot;
    slot.number = static_cast<std::uint16_t>(i);
    slot.incarnation = value(entry.incarnation);
    slot.client = value(entry.client);
    slot.own = state == PublisherState::exchange;
    if (state == PublisherState::none) {
      if (slot.incarnation + slot.client != 0)
        look.violation("exchange", "publisher_state", where + ": it is free, and has files or a client");
      continue;
    }
    if (state > PublisherState::exchange) {
      look.violation("exchange", "publisher_state", where + ": its state is " + std::to_string(value(entry.state)));
      continue;
    }
    ++look.report.publishers;
    if (slot.own && ++own > 1)
      look.violation("exchange", "publisher_state", where + ": the exchange has another one already");
    check_name(look, slot, state, entry.name.data(), names);
    if (slot.client != 0) look.clients_used.emplace(slot.client, where);
    if (slot.incarnation == 0) {
      if (slot.client != 0) look.violation("exchange", "publisher_files", where + ": it has a client, but no files");
      continue;
    }
    const std::string cursor = Exchange::cursor_name(slot.number, slot.incarnation);
    const std::string ring = Exchange::ingress_name(slot.number, slot.incarnation);
    look.uses_file_number(slot.incarnation, where);
    if (!look.has(cursor)) {
      if (look.has("damaged." + cursor)) continue;
      look.violation(cursor, "missing", where + " has files of this number, but no cursor");
      continue;
    }
    if (!look.has(ring) && slot.client != 0) look.violation(ring, "missing", where + " has a client, but no ring");
    if (slot.client != 0 && look.live && !holds_lock(look, slot.client)) {
      look.violation("client." + std::to_string(slot.client) + ".lock", "client",
                     where + ": its client is dead, and still has it");
    }
    const bool done = until_it_stands_still(look, [&] {
      slot.cursor = look.open(cursor);
      if (look.has(ring)) slot.ring = look.open(ring);
      return !slot.cursor.valid() || check_files(look, slot);
    });
    if (!done)
      look.add(Gravity::note, cursor, "moves", "it moved whenever it was looked at: its counters were not compared");
  }
}

}  // namespace ackring::exchange
