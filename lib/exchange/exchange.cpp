#include "lib/exchange/exchange.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "ackring/error.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/exchange/sound.hpp"
#include "lib/shm/bus_error_guard.hpp"

namespace ackring::exchange {

Exchange::Exchange(shm::Directory& directory, control::AccessRules access, std::size_t shards)
    : directory_(directory), peers_(std::make_shared<Peers>()), access_(std::move(access)), queues_(peers_->queues) {
  if (directory.exists("exchange")) {
    segment_ = shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_write);
    if (segment_.header().boot_id != shm::boot_id()) {
      throw Error(ErrorCode::damaged, directory.path(), "the bus was left by an earlier boot of this machine",
                  "move the directory away and start again");
    }
    check_exchange(segment_);
  } else {
    segment_ = shm::Segment::create(directory, "exchange", shm::SegmentKind::exchange, sizeof(shm::ExchangeSegment), 0,
                                    0, [shards](std::byte* base) {
                                      auto* page = reinterpret_cast<shm::ExchangeSegment*>(base);
                                      if (shards > 1)
                                        page->shards.store((1u << shards) - 1,
                                                           std::memory_order_relaxed);  // relaxed: nobody knows it
                                    });
  }
  page_ = segment_.as<shm::ExchangeSegment>();
  intents_ = page_->intents[shard_].data();
  // relaxed: X is the only writer of this file; a predecessor's stores are ordered by the kernel lock
  generation_ = page_->generation.load(std::memory_order_relaxed) + 1;
  shm::Environment::at(shm::CrashPoint::recover_begin);
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::recovering), std::memory_order_relaxed);
  page_->generation.store(generation_, std::memory_order_relaxed);  // relaxed: for people and messages
  served_ns_ = page_->served_ns.load(std::memory_order_relaxed);    // relaxed: as above
  fence_required_ =
      page_->fence_required.load(std::memory_order_relaxed) != 0;  // relaxed: as above; its client may live

  peers_->topics = std::make_unique<control::TopicTable>(directory, generation_);
  publishers_.resize(shm::max_publishers);
  peers_->shards.push_back(this);
  for (std::size_t shard = 1; shard < shm::max_shards; ++shard) {
    if (!is_shard(*page_, shard)) continue;
    followers_.push_back(std::unique_ptr<Exchange>(new Exchange(*this, shard)));
    peers_->shards.resize(shard + 1);
    peers_->shards[shard] = followers_.back().get();
  }
  recover();
}

void Exchange::recover() {
  const std::vector<std::string> files = directory_.list("");  // once: a bus may have tens of thousands
  raise_numbers(files);
  shm::Environment::at(shm::CrashPoint::recover_subscriptions);
  recover_subscriptions(files);
  shm::Environment::at(shm::CrashPoint::recover_publishers);
  recover_publishers();
  for_each_shard([this](Exchange& shard) {
    shard.redo();  // decides as before; what the rules allow by now is for what comes
    shard.redone_ = true;
    if (&shard == this) return;
    std::move(shard.report_.begin(), shard.report_.end(), std::back_inserter(report_));
    shard.report_.clear();
  });
  for_each_shard([](Exchange& shard) {
    for (const auto& ingress : shard.publishers_) {
      if (ingress && ingress->ring_page != nullptr) shard.withdraw_topics(*ingress);
    }
  });
  for (const auto& queue : queues_) {
    if (!queue) continue;
    if (is_moving(*queue)) recount(*queue, report_);  // what the redo has completed is to be counted by now
    if (queue->ephemeral && !queue->has_member()) {   // its member left while the exchange was dying
      remove_subscription(*queue);
      continue;
    }
    Exchange& owner = owner_of(*queue);
    owner.recover_slots(*queue);
    owner.index_retries(*queue);
    queue->to_backlog = queue->goes_to_backlog();
    owner.activate(*queue);
  }
  shm::Environment::at(shm::CrashPoint::recover_strays);
  remove_strays(files);
  shm::Environment::at(shm::CrashPoint::recover_end);
  // relaxed: read by people and tools only
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::running), std::memory_order_relaxed);
}

Exchange::~Exchange() = default;

void Exchange::close() {
  // relaxed: read by people and tools only
  page_->state.store(static_cast<std::uint32_t>(shm::ExchangeState::stopped), std::memory_order_relaxed);
}

void Exchange::activate(Queue& queue) {
  if (queue.active) return;
  queue.active = true;
  active_.push_back(&queue);
}

// Of a ring that this shard has read: so have the others, as far as one can tell while they run?
bool Exchange::passed_by_all(const Ingress& ingress) const {
  bool passed = true;
  for_each_shard([&](const Exchange& shard) {
    // relaxed: a hint; what follows from it is done while all are held
    const std::uint64_t consumed = ingress.cursor_page->shards[shard.shard_].consumed.load(std::memory_order_relaxed);
    passed = passed && consumed == ingress.block.consumed;
  });
  return passed;
}

bool Exchange::step(std::uint64_t now_ns) {
  clock_ns_ = now_ns;
  waits_for_shard_ = false;
  std::size_t drained = 0;
  const std::size_t count = hot_.size();
  std::size_t held_up = count;
  // Always in the same order, so that between two looks at one publisher there is one batch of each other.
  for (std::size_t i = 0; i < count && i < hot_.size(); ++i) {
    Ingress& ingress = *hot_[i];
    if (!ingress.reader.readable()) {
      if (count == 1) ingress.reader.prefetch();  // so that the next record travels together with its tail
      continue;
    }
    if (drain(ingress, now_ns, 0, false)) {
      ++drained;
      ingress.last_moved_ns = now_ns;
    }
    if (std::exchange(short_of_room_, false)) held_up = i;
  }
  bool moved = drained != 0;
  // Whoever found no room is the first for whom there may be some: nobody else always takes it before.
  if (held_up < hot_.size()) std::rotate(hot_.begin(), hot_.begin() + held_up, hot_.begin() + held_up + 1);
  for (std::size_t i = 0; i < active_.size(); ++i) {
    // A batch more than may have come in: a backlog gets shorter under load, too.
    for (std::size_t batch = 0; batch <= drained && active_[i]->to_backlog && pump(*active_[i]); ++batch) moved = true;
  }
  if (last_values_) keep_last_values();
  return moved;
}

// A client that comes back with new damage again and again must not fill X's memory with it.
void Exchange::note(Notice notice) {
  constexpr std::size_t most_lines = 1000;
  if (report_.size() < most_lines) report_.push_back(std::move(notice));
  if (shard_ != 0) call_lead();  // who tells people
}

void Exchange::tick(std::uint64_t now_ns) {
  now_ns = latest_ns_ = std::max(latest_ns_, now_ns);
  serve(now_ns);
  now_ns_ = clock_ns_ = now_ns;
  if (shm::bus_errors() != bus_errors_) look_for_cut_files();
  shm::Word64& sign_of_life = shard_ == 0 ? page_->tick_ns : page_->shard_tick_ns[shard_ - 1];
  sign_of_life.store(now_ns, std::memory_order_relaxed);  // relaxed: for tools
  for (std::size_t i = 0; i < active_.size();) {
    Queue& queue = *active_[i];
    const auto leaves = [](const Lane& lane) { return lane.leaving; };
    if (!detach_members(queue, leaves)) continue;  // an ephemeral one has gone
    sweep(queue, now_ns);
    if (!detach_members(queue, leaves)) continue;  // whom the sweep distrusts has lost its place before it is told so
    (void)head_in_time(queue);
    if (queue.burying) bury_pending(queue);
    announce(queue);
    // The rings of a dispatched subscription's dead members are hand_over()'s, when it goes on.
    if (queue.has_orphans && (queue.paused || !queue.dispatched()))
      queue.has_orphans = !bring_back(queue) || queue.dispatched();
    if (queue.ending && !queue.has_member() && queue.block.dead_events == 0 && pending(queue) == 0 &&
        !has_unannounced(queue)) {
      const std::string name = queue.options.name;
      if (!try_to_remove(queue)) {
        ++i;
      } else {
        note({Notice::Level::info,
              "subscription.removed",
              "subscription " + name + ": removed: nothing is left in it",
              {{"subscription", name}}});
      }
      continue;
    }
    if (queue.ephemeral && !queue.has_member()) {
      if (!try_to_remove(queue)) ++i;
      continue;
    }
    bool settled = queue.block.backlog_events == 0;
    queue.each_lane([&settled](const Lane& lane) { settled = settled && lane.floor_entry == lane.entries; });
    if (settled) queue.backlog.trim(queue.block.backlog_head);
    if (queue.block.retry_events == 0) queue.retry.trim(queue.block.retry_head);
    if (queue.block.dead_events == 0) queue.dead.trim(queue.block.dead_head);
    const bool waiting = queue.block.retry_events != 0 || queue.may_expire() || queue.burying || has_unannounced(queue);
    if (!waiting && (settled || !queue.has_member())) {
      queue.active = false;
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
  for (std::size_t slot = 0; shard_ == 0 && slot < publishers_.size(); ++slot) {
    Ingress* ingress = publishers_[slot].get();
    if (ingress == nullptr || !ingress->closing || ingress->ring_page == nullptr) continue;
    if (!ingress->quarantined && (ingress->reader.readable() || !passed_by_all(*ingress))) continue;
    if (alone() || (may_change() && (ingress->quarantined || read_by_all(*ingress)))) retire_ingress(*ingress);
  }
  rest_quiet_rings(now_ns);
}

}  // namespace ackring::exchange
