// Doctor: the page of the exchange: state, generation, intents, and the numbers that it has given out.
#include <algorithm>
#include <cstdlib>

#include "lib/exchange/doctor_look.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

using shm::TransactionKind;

namespace {

const char* const file = "exchange";

// The record that counts is whole; the other one may be half overwritten.
void check_intents(Look& look, std::size_t shard) {
  std::array<shm::Intent, 2> intents;
  if (!look.page_file.read_as(offsetof(shm::ExchangeSegment, intents) + shard * sizeof intents, intents)) return;
  const std::uint64_t even = value(intents[0].n);
  const std::uint64_t odd = value(intents[1].n);
  const bool first = odd == shm::first_n(shard) + 1 && even == 0;
  const bool in_turn = even % 2 == 0 && (odd % 2 == 1 || odd == 0) &&
                       (even + 1 == odd || odd + 1 == even || (even | odd) == 0 || first) &&
                       ((even | odd) == 0 || shm::shard_of(std::max(even, odd)) == shard);
  if (!in_turn) {
    look.violation(
        file, "intent",
        "its two intents are " + std::to_string(even) + " and " + std::to_string(odd) + ", not one after the other");
  }
  const LastIntent last = look.last_intent(shard);
  if (last.n == 0) return;
  const std::string which = "intent " + std::to_string(last.n);
  if (name_of(last.kind).empty()) {
    look.violation(file, "intent", which + " is of kind " + std::to_string(static_cast<std::uint32_t>(last.kind)));
  } else if (last.kind == TransactionKind::route && last.source >= shm::max_publishers) {
    look.violation(file, "intent", which + " routes from publisher " + std::to_string(last.source));
  } else if (last.kind == TransactionKind::route && last.to - last.from > (std::uint64_t{1} << 30)) {
    look.violation(file, "intent", which + " routes more than a ring holds");
  } else if (last.kind != TransactionKind::route && last.source > value(look.page->next_file)) {
    look.violation(file, "intent", which + " is of subscription " + std::to_string(last.source) + ", which never was");
  }
}

}  // namespace

bool check_page(Look& look) {
  if (!look.has(file)) {
    if (look.live) look.violation(file, "missing", "the exchange serves, but its page is not there");
    if (!look.live) look.add(Gravity::note, file, "missing", "no exchange has begun on this bus");
    return false;
  }
  look.page_file = look.open(file);
  if (!look.page_file.valid()) return false;
  if (!look.check_header(look.page_file, shm::SegmentKind::exchange, 0, sizeof(shm::ExchangeSegment), false))
    return false;
  if (!look.page_file.read_as(0, *look.page)) {
    look.violation(file, "size", "it was cut short while it was read");
    return false;
  }
  const shm::ExchangeSegment& page = *look.page;
  const std::uint32_t state = value(page.state);
  look.stopped = !look.live && state == static_cast<std::uint32_t>(shm::ExchangeState::stopped);
  if (page.header.boot_id != shm::boot_id()) {
    if (look.live) look.violation(file, "boot_id", "an exchange serves a bus that an earlier boot has left");
    if (!look.live) {
      look.add(Gravity::note, file, "boot_id",
               "the bus is of an earlier boot or another machine: no exchange starts on it");
    }
  }
  if (value(page.generation) == 0) look.violation(file, "generation", "its generation is 0");
  if (state == 0 || state > static_cast<std::uint32_t>(shm::ExchangeState::stopped)) {
    look.violation(file, "state", "its state is " + std::to_string(state));
  } else if (look.live && state == static_cast<std::uint32_t>(shm::ExchangeState::stopped)) {
    look.violation(file, "state", "it says stopped, but a process holds the lock");
  } else if (!look.live && !look.stopped) {
    look.add(Gravity::note, file, "died", "the last exchange died without a stop: the next one recovers");
  }
  if (value(page.fence_required) > 1) look.violation(file, "fence_required", "it is neither 0 nor 1");
  if (value(page.shards) >> shm::max_shards != 0) {
    look.violation(file, "shards", "its mask of shards is " + std::to_string(value(page.shards)));
  }
  for (std::size_t shard = 0; shard < shm::max_shards; ++shard) check_intents(look, shard);
  return true;
}

// Numbers are never given twice: each that is in use is at most the last one given. Read last, as they only grow.
void check_numbers(Look& look) {
  std::array<std::uint64_t, 2> last{};
  if (!look.page_file.read_as(offsetof(shm::ExchangeSegment, next_client), last)) return;
  for (const auto& [client, user] : look.clients_used) {
    if (client <= last[0]) continue;
    look.violation(file, "next_client",
                   "the last client was " + std::to_string(last[0]) + ", " + user + " names " + std::to_string(client));
  }
  if (look.largest_file_number.first > last[1]) {
    look.violation(
        file, "next_file",
        "the last number given was " + std::to_string(last[1]) + ", there is " + look.largest_file_number.second);
  }
  if (!look.live && look.open_transaction) {
    const LastIntent intent = look.last_intent(*look.open_transaction);
    look.add(Gravity::note, file, "open_transaction",
             "transaction " + std::to_string(intent.n) + " (" + std::string(name_of(intent.kind)) +
                 ") is half done: the next exchange finishes it");
  }
  std::array<shm::PublisherEntry, shm::max_publishers> publishers;
  if (!look.page_file.read_as(offsetof(shm::ExchangeSegment, publishers), publishers)) return;
  for (const auto& [slot, user] : look.slots_used) {
    if (slot < publishers.size() && value(publishers[slot].state) != 0) continue;
    look.violation(user, "publisher",
                   "an event in it is of publisher " + std::to_string(slot) + ", which there is not");
  }
}

}  // namespace ackring::exchange
