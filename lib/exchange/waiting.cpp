// Waiting: which rings X looks at by itself, and what it asks of clients before it sleeps.
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

// Said before the barrier of one who parks. Said too late that a ring is polled, its publisher rings once too often.
void Exchange::say_polled(Ingress& ingress, bool polled) {
  shm::Word32& word = ingress.first().not_polled;
  if (alone()) {
    word.store(polled ? 0 : 1, std::memory_order_relaxed);  // relaxed: ordered by the barrier of the parker
    return;
  }
  if (ingress.said_not_polled == !polled) return;
  ingress.said_not_polled = !polled;
  const std::uint32_t bit = 1u << shard_;
  word.fetch_add(polled ? 0 - bit : bit, std::memory_order_relaxed);  // relaxed: as above; no other shard has this bit
}

// Rings that are quiet cost a look each step: beyond a few, they leave the list and their publishers ring instead.
void Exchange::rest_quiet_rings(std::uint64_t now_ns) {
  std::erase_if(hot_, [](Ingress* ingress) {
    if (ingress->own) ingress->hot = ingress->reader.readable();  // X knows when it writes into it
    return !ingress->hot;
  });
  constexpr std::size_t polled_anyway = 4;
  constexpr std::uint64_t quiet_ns = 20'000'000;
  if (hot_.size() <= polled_anyway) return;
  const auto quiet = [&](const Ingress* ingress) {
    return of_lead(*ingress).has_bell && now_ns - ingress->last_moved_ns > quiet_ns;
  };
  bool any = false;
  for (Ingress* ingress : hot_) {
    if (!quiet(ingress)) continue;
    say_polled(*ingress, false);
    any = true;
  }
  if (!any) return;
  shm::barrier_for_parker();
  std::erase_if(hot_, [&](Ingress* ingress) {
    if (!quiet(ingress)) return false;
    ingress->hot = ingress->reader.readable();
    if (ingress->hot) say_polled(*ingress, true);
    return !ingress->hot;
  });
}

bool Exchange::needs_tick() const noexcept {
  if (!active_.empty() || waits_for_shard_) return true;
  for (const Ingress* ingress : hot_) {
    if ((!of_lead(*ingress).has_bell && !ingress->own) || ingress->closing) return true;
  }
  return false;
}

bool Exchange::prepare_park() {
  for (Ingress* ingress : hot_) say_polled(*ingress, false);
  for (Queue* queue : active_) {
    queue->each_lane([queue](Lane& lane) {
      if (!lane.has_member() || !queue->wants_acks(lane)) return;
      lane.ring_page->acks_wanted.store(1, std::memory_order_relaxed);  // relaxed: ordered by the barrier below
    });
  }
  shm::barrier_for_parker();
  for (const Ingress* ingress : hot_) {
    // A ring that is full of blocked events is work only when its sink has room again; its sink will ring.
    if (!ingress->quarantined && ingress->reader.readable() && ingress->reader.position() == ingress->reader.limit()) {
      return false;
    }
  }
  for (Queue* queue : active_) {
    bool moved = false;
    queue->each_lane([&](Lane& lane) {
      const std::uint64_t floor = lane.floor_entry;
      if (queue->wants_acks(lane)) settle(lane);
      moved = moved || lane.floor_entry != floor;
    });
    if (moved) return false;
  }
  return true;
}

void Exchange::unpark() {
  for (Ingress* ingress : hot_) say_polled(*ingress, true);
  for (Queue* queue : active_) {
    queue->each_lane([](Lane& lane) {
      if (lane.has_ring) lane.ring_page->acks_wanted.store(0, std::memory_order_relaxed);  // relaxed: as above
    });
  }
}

void Exchange::heat(Ingress& ingress) {
  if (ingress.hot || ingress.ring_page == nullptr) return;
  ingress.hot = true;
  hot_.push_back(&ingress);
  say_polled(ingress, true);
}

}  // namespace ackring::exchange
