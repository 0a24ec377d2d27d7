// Doctor: the rings of members, the exchange's state of each delivery in them, and the pages on which members decide.
#include <algorithm>
#include <bit>
#include <utility>

#include "lib/exchange/doctor_subscription.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

using shm::DeliveryState;
using shm::TransactionKind;

namespace {

std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
}

bool is_behind(std::uint64_t left, std::uint64_t right) { return static_cast<std::int64_t>(left - right) > 0; }

bool moves_an_entry(TransactionKind kind) {
  using enum TransactionKind;
  return kind == redeliver || kind == retry || kind == bury || kind == hand || kind == set_aside || kind == discard;
}

std::string number(std::uint64_t value) { return std::to_string(value); }

}  // namespace

void SubscriptionLook::check_ring(Ring& ring) {
  const std::string& name = ring.file.name();
  const bool others_whole = std::exchange(rings_whole_, false);
  look_.uses_file_number(ring.incarnation, name);
  if (!look_.check_header(ring.file, shm::SegmentKind::member_ring, id_, sizeof(shm::MemberRing), false)) return;
  if (!ring.file.read_as(0, ring.page)) return;
  const shm::MemberRing& page = ring.page;
  const std::uint64_t slots = std::bit_ceil(std::uint64_t{options_.max_in_flight});
  if (page.slots != slots || page.ring_bytes != options_.ring_bytes ||
      shm::page_bytes + whole_pages(slots) + page.ring_bytes > ring.file.bytes()) {
    look_.violation(name, "ring_bytes",
                    "a ring of " + number(page.ring_bytes) + " bytes and " + number(page.slots) +
                        " slots in a file of " + number(ring.file.bytes()) + "; its subscription wants " +
                        number(options_.ring_bytes) + " and " + number(slots));
    return;
  }
  ring.slots = slots;
  ring.block = page.blocks[value(page.version) & 1];
  if (dispatched() ? page.number == 0 || page.number > 0xffff : page.number != 0) {
    look_.violation(name, "number", "its member has number " + number(page.number));
  }
  for (const auto& other : rings_) {
    if (other.get() == &ring) break;
    if (dispatched() && !other->retired && other->page.number == page.number) {
      look_.violation(name, "number", "its member has number " + number(page.number) + ", as another one");
    }
  }
  rings_whole_ = others_whole;
  if (!walk_ring(ring)) {
    rings_whole_ = false;
    return;
  }
  check_ring_words(ring);
  count_entries(ring);
  check_acks(ring);
}

// From the floor to the tail: which records there are. False: that can't be told.
bool SubscriptionLook::walk_ring(Ring& ring) {
  const std::string& name = ring.file.name();
  const std::uint64_t tail = value(ring.page.tail);
  const std::uint64_t floor = ring.block.floor_position;
  const std::uint64_t data = shm::page_bytes + whole_pages(ring.slots);
  if (tail - floor > ring.page.ring_bytes || tail % shm::record_alignment != 0 || floor % shm::record_alignment != 0) {
    look_.violation(name, "tail",
                    "its tail is " + number(tail) + ", its floor " + number(floor) + ", of a ring of " +
                        number(ring.page.ring_bytes));
    return false;
  }
  const bool open = value(ring.page.sink.n) == intent_.n && intent_.n != 0;
  const std::uint64_t base = value(ring.page.sink.base);
  ring.deliveries.clear();
  ring.end = ring.counted = ring.block.floor_entry;
  bool counts = true;
  for (std::uint64_t position = floor; position != tail;) {
    const std::uint64_t index = position & (ring.page.ring_bytes - 1);
    const std::uint64_t rest = ring.page.ring_bytes - index;
    const RecordLook record = look_at_record(ring.file, data + index, std::min(tail - position, rest), Place::ring);
    if (record.what == RecordLook::What::padding && record.bytes == rest) {
      position += rest;
      continue;
    }
    if (record.what != RecordLook::What::event) {
      const std::string why = record.damage.empty() ? "its padding does not end with the ring" : record.damage;
      look_.violation(name, "record", "the record at position " + number(position) + ": " + why);
      return false;
    }
    note_event(record, name);
    ring.deliveries.push_back(record.header.delivery);
    // Of a subscription with one member its block says how far it counts; the rings of others see whole moves only.
    if (dispatched()) counts = counts && !(open && !counted() && !is_behind(base, position));
    ++ring.end;
    if (dispatched() ? counts : !is_behind(ring.end, block_.entries)) ring.counted = ring.end;
    position += record.bytes;
  }
  if (ring.counted != ring.end) open_transaction_ = true;
  const bool behind = !dispatched() && ring.counted != block_.entries;
  if (behind || (ring.counted != ring.end && !open)) {
    look_.violation(name, "entries",
                    "its entries end at " + number(ring.end) + ", " +
                        number(dispatched() ? ring.counted : block_.entries) +
                        " are counted, and no transaction is open");
  }
  if (ring.end - ring.block.floor_entry > ring.slots) {
    look_.violation(name, "slots",
                    number(ring.end - ring.block.floor_entry) + " entries in " + number(ring.slots) + " slots");
  }
  return true;
}

void SubscriptionLook::check_ring_words(const Ring& ring) {
  const std::string& name = ring.file.name();
  const shm::MemberRing& page = ring.page;
  std::uint64_t settled = 0;
  for (std::size_t i = 0; i < ring.block.totals.size(); ++i) {
    if (i != static_cast<std::size_t>(DeliveryState::late_ack)) settled += ring.block.totals[i];
  }
  const std::uint64_t passed = ring.block.floor_entry - page.start_entry;
  if (settled != passed || ring.block.totals[0] != 0) {
    look_.violation(name, "totals",
                    number(settled) + " deliveries are counted as settled, the floor has passed " + number(passed));
  }
  if (is_behind(page.start_position, ring.block.floor_position)) {
    look_.violation(name, "floor", "its floor is before its start");
  }
  if (is_behind(value(page.revoked), ring.end)) {
    look_.violation(name, "revoked",
                    "taken back up to " + number(value(page.revoked)) + ", its entries end at " + number(ring.end));
  }
  if (!look_.has_had(value(page.sink.n)) ||
      (value(page.sink.n) == intent_.n && is_behind(value(page.sink.base), value(page.tail)))) {
    look_.violation(name, "sink",
                    "its sink is of transaction " + number(value(page.sink.n)) + " from " +
                        number(value(page.sink.base)) + ", of " + number(intent_.n));
  }
  if (value(page.acks_wanted) > 1) look_.violation(name, "acks_wanted", "it is neither 0 nor 1");
  for (std::size_t i = 0; i < shm::delivery_states; ++i) totals_[i] += ring.block.totals[i];
}

// The state byte that an entry is to have: a move whose copy counts may not have marked its source yet.
std::uint8_t SubscriptionLook::moved_state(const Ring& ring, std::uint64_t entry) const noexcept {
  const bool moves = counted() && intent_.n != 0 && moves_an_entry(intent_.kind) && intent_.source == id_ &&
                     intent_.to >> 8 == ring.incarnation && intent_.from == entry;
  return moves ? static_cast<std::uint8_t>(intent_.to) : std::uint8_t{0};
}

void SubscriptionLook::count_entries(Ring& ring) {
  const std::string& name = ring.file.name();
  std::vector<std::uint8_t> states(ring.slots);
  if (!ring.file.read(shm::page_bytes, states.size(), states.data())) return;
  const std::uint64_t floor = ring.block.floor_entry;
  const std::uint64_t mask = ring.slots - 1;
  constexpr std::uint8_t known_bits = shm::state_mask | shm::late_ack_bit | shm::let_go_bit;
  for (std::uint64_t entry = floor; entry != ring.end; ++entry) {
    std::uint8_t& state = states[entry & mask];
    const std::uint8_t kind = state & shm::state_mask;
    const bool bits_without_state = state != 0 && kind == 0;
    if ((state & ~known_bits) != 0 || bits_without_state ||
        kind == static_cast<std::uint8_t>(DeliveryState::late_ack)) {
      look_.violation(name, "state", "the state of entry " + number(entry) + " is " + number(state));
    }
    const bool counts = is_behind(ring.counted, entry);
    if (!counts && state != 0) {
      look_.violation(name, "state", "entry " + number(entry) + " does not count yet, and is settled");
    }
    std::uint8_t settled = state;
    if (counts && state == 0) {
      settled = moved_state(ring, entry);
      if (settled != 0) open_transaction_ = true;
    }
    if (counts && settled == 0) {
      ++open_entries_;
      deliveries_.push_back(ring.deliveries[entry - floor]);
    } else if (counts) {
      ++totals_[settled & shm::state_mask];
    }
    state = 0;
  }
  // What a crash leaves outside is cleared when an exchange starts; a live one takes what is there for the next entry's.
  const auto left = std::find_if(states.begin(), states.end(), [](std::uint8_t state) { return state != 0; });
  if (left == states.end() || !(look_.live || look_.stopped)) return;
  look_.violation(
      name, "state_outside",
      "slot " + number(static_cast<std::uint64_t>(left - states.begin())) + " has a state, but no delivery");
}

void SubscriptionLook::check_acks(Ring& ring) {
  const std::uint64_t incarnation = value(ring.page.ack_page);
  const std::uint64_t client = value(ring.page.client);
  if (incarnation == 0) return;
  const std::string name = Exchange::ack_name(id_, incarnation);
  look_.uses_file_number(incarnation, ring.file.name());
  if (client == 0) {
    look_.add(Gravity::note, ring.file.name(), "client",
              "the exchange has found its member's ack page impossible: the member counts as dead");
  }
  if (client != 0) look_.clients_used.emplace(client, ring.file.name());
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) {
    look_.violation(name, "missing", ring.file.name() + " names this ack page, which is not there");
    return;
  }
  ring.ack = look_.open(name);
  if (!ring.ack.valid() ||
      !look_.check_header(ring.ack, shm::SegmentKind::ack_page, id_, ring::ack_page_bytes(ring.slots), false)) {
    return;
  }
  auto page = std::make_unique<shm::AckPage>();
  if (!ring.ack.read_as(0, *page)) return;
  if (page->slots != ring.slots)
    look_.violation(name, "slots", "it has " + number(page->slots) + " slots, its ring " + number(ring.slots));
  if (is_behind(ring.page.start_entry, page->start_entry) || is_behind(page->start_entry, ring.end)) {
    look_.violation(name, "start_entry",
                    "it begins with entry " + number(page->start_entry) + ", which its ring did not have");
  }
  // A member may have stored more since the first word was read; beyond the ring's end nothing is possible.
  const std::uint64_t taken = value(page->taken);
  const std::uint64_t most = look_.live ? ring.end : taken;
  const auto within = [&](const char* word, std::uint64_t entry, std::uint64_t least, std::uint64_t last) {
    if (!is_behind(least, entry) && !is_behind(entry, last)) return;
    look_.violation(
        name, word,
        std::string(word) + " is " + number(entry) + ", not within " + number(least) + " and " + number(last));
  };
  within("taken", taken, ring.block.floor_entry, ring.end);
  within("acked_through", value(page->acked_through), page->start_entry, most);
  within("refused", value(page->refused), page->start_entry, most);
  within("released", value(page->released), page->start_entry, most);
  if (value(page->parked) > 1) look_.violation(name, "parked", "it is neither 0 nor 1");
  check_ack_words(ring, *page);
}

// A word is of its slot's last entry or of one before it, and says what somebody has defined.
void SubscriptionLook::check_ack_words(const Ring& ring, const shm::AckPage& page) {
  std::vector<std::uint64_t> words(ring.slots);
  if (!ring.ack.read(shm::page_bytes, words.size() * sizeof(std::uint64_t), words.data())) return;
  const std::uint64_t end = look_.live ? ring.end : value(page.taken);
  const int shift = std::countr_zero(ring.slots);
  for (std::uint64_t slot = 0; slot < ring.slots; ++slot) {
    const std::uint64_t word = words[slot];
    if (word == 0) continue;
    const std::uint64_t last = end - 1 - ((end - 1 - slot) & (ring.slots - 1));  // entry below `end` that has this slot
    const auto ahead =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(word >> 32) - static_cast<std::uint32_t>(last >> shift));
    const bool none_yet = is_behind(slot + 1, end) && last > end;
    if (ahead > 0 || none_yet) {
      look_.violation(ring.ack.name(), "word",
                      "the word of slot " + number(slot) + " is of a delivery that was not taken");
    } else if (ring::AckWord::verdict(word) > ring::last_verdict) {
      look_.violation(ring.ack.name(), "verdict",
                      "the word of slot " + number(slot) + " has a verdict that nobody has defined");
    } else {
      continue;
    }
    return;
  }
}

}  // namespace ackring::exchange
