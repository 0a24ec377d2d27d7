// Shards: how several exchanges share a bus. A subscription belongs to one of them, which alone writes its sinks; each reads
// every publisher's ring through a cursor of its own. What decides for all is the lead's: the books of publishers, which
// ids are known, who comes and goes.
#include <algorithm>
#include <array>
#include <utility>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/versioned.hpp"

namespace ackring::exchange {

namespace {

// Is there a shard without a subscription, while another has two? A death while a bus was divided may leave that.
bool is_lopsided(const Peers& peers) {
  std::array<std::size_t, shm::max_shards> count{};
  for (const auto& queue : peers.queues) {
    if (queue && queue->role == Role::ordinary) ++count[queue->shard];
  }
  bool idle = false;
  for (std::size_t shard = 0; shard < peers.shards.size(); ++shard) {
    idle = idle || (peers.shards[shard] != nullptr && count[shard] == 0);
  }
  return idle && *std::max_element(count.begin(), count.end()) > 1;
}

}  // namespace

ShardHold::ShardHold(Peers& peers) : peers_(peers) {
  if (peers_.holder == nullptr || peers_.held++ != 0) return;
  peers_.holder->hold_all();
  peers_.may_change = true;
}

ShardHold::~ShardHold() {
  if (peers_.holder == nullptr || --peers_.held != 0) return;
  peers_.may_change = false;
  peers_.holder->let_go();
}

void Exchange::set_holder(ShardHolder* holder) noexcept {
  peers_->holder = holder;
  peers_->held = 0;
  peers_->may_change = holder == nullptr;
}

// One of the others. Its lead recovers it.
Exchange::Exchange(Exchange& lead, std::size_t shard)
    : directory_(lead.directory_),
      peers_(lead.peers_),
      access_(lead.access_),
      page_(lead.page_),
      intents_(lead.page_->intents[shard].data()),
      shard_(shard),
      generation_(lead.generation_),
      served_ns_(lead.served_ns_),
      fence_required_(lead.fence_required_),
      queues_(peers_->queues) {
  random_ += shard;  // so that the jitter of one shard is not that of another
  publishers_.resize(shm::max_publishers);
}

std::unique_ptr<Exchange> Exchange::open(shm::Directory& directory, control::AccessRules access, std::size_t shards) {
  auto exchange = std::make_unique<Exchange>(directory, access, shards);
  if (!exchange->divide(shards)) return exchange;
  // What it has just written is what a predecessor has left; what it has found, nobody finds again.
  std::vector<Notice> report = std::move(exchange->report_);
  exchange.reset();
  exchange = std::make_unique<Exchange>(directory, std::move(access));
  exchange->report_.insert(exchange->report_.begin(), report.begin(), report.end());
  return exchange;
}

// Whether structure may change now: files and lists that other shards look at. If not, the lead sees to it soon, with all
// shards held.
bool Exchange::may_change() {
  if (peers_->may_change) return true;
  call_lead();
  return false;
}

void Exchange::call_lead() {
  if (calls_ || alone()) return;
  calls_ = true;
  if (peers_->holder != nullptr) peers_->holder->call_lead();
}

void Exchange::look_after_shards(std::uint64_t now_ns) {
  for_each_shard([&](Exchange& shard) {
    if (!std::exchange(shard.calls_, false)) return;
    shard.tick(now_ns);
    shard.calls_ = false;
    if (&shard == this) return;
    for (Notice& notice : shard.report_) note(std::move(notice));
    shard.report_.clear();
    std::move(shard.offences_.begin(), shard.offences_.end(), std::back_inserter(offences_));
    shard.offences_.clear();
  });
  find_quarantined();
}

// A ring in which one shard has found damage is not read by any other, either, but for what they may still read before it.
void Exchange::find_quarantined() {
  for (std::size_t slot = 0; !alone() && slot < publishers_.size(); ++slot) {
    const Ingress* ingress = publishers_[slot].get();
    if (ingress == nullptr || ingress->ring_page == nullptr) continue;
    // relaxed: a notice, and all shards are held
    if (ingress->first().quarantined.load(std::memory_order_relaxed) == 0) continue;
    drain_all(*ingress);
    for_each_shard([slot](Exchange& shard) { shard.publishers_[slot]->quarantined = true; });
  }
}

// What is left in the ring of one who is gone. Shards may wait for each other.
void Exchange::drain_all(const Ingress& ingress) {
  bool moved = true;
  while (std::exchange(moved, false)) {
    for_each_shard([&ingress, &moved](Exchange& shard) {
      Ingress& same = *shard.publishers_[ingress.slot];
      while (same.reader.readable() && shard.drain(same, 0, 0, false)) moved = true;
    });
  }
}

void Exchange::set_fence_required(bool required) noexcept {
  if (!required) return;
  // relaxed: who needs it is admitted later, by a message
  page_->fence_required.store(1, std::memory_order_relaxed);
  for_each_shard([](Exchange& shard) { shard.fence_required_ = true; });
}

void Exchange::set_retry_clock(std::uint64_t (*clock)()) noexcept {
  for_each_shard([clock](Exchange& shard) { shard.retry_clock_ = clock; });
}

void Exchange::set_full_ring_grace(std::uint64_t ns) noexcept {
  for_each_shard([ns](Exchange& shard) { shard.full_ring_grace_ns_ = ns; });
}

// Shards know the patterns of their subscriptions, the lead those of all, so that it knows what nobody matches; ids count
// for everybody.
void Exchange::change_routes(const Queue& queue, const std::vector<std::string>& patterns, bool add) {
  for_each_shard([&](Exchange& shard) {
    if (shard.shard_ != 0 && shard.shard_ != queue.shard && queue.role != Role::event_ids) return;
    if (add) {
      shard.routes_.add(patterns, queue.index);
    } else {
      shard.routes_.remove(patterns, queue.index);
    }
  });
}

// Where a new subscription goes. What the exchange itself consumes is the lead's; one that begins with last values has to
// have them and what follows from the same cursor.
std::size_t Exchange::shard_for(const SubscriptionOptions& options, StartFrom from) const {
  if (alone() || control::is_reserved(options.name) || from == StartFrom::last_values) return 0;
  std::array<std::size_t, shm::max_shards> count{};
  for (const auto& queue : queues_) {
    if (queue) ++count[queue->shard];
  }
  std::size_t best = 0;
  for_each_shard([&](const Exchange& shard) {
    if (count[shard.shard_] < count[best]) best = shard.shard_;
  });
  return best;
}

bool Exchange::read_by_all(const Ingress& ingress) const {
  bool read = true;
  for_each_shard([&](const Exchange& shard) { read = read && !shard.publishers_[ingress.slot]->reader.readable(); });
  return read;
}

bool Exchange::are_level() const {
  for (std::size_t slot = 0; slot < publishers_.size(); ++slot) {
    if (!publishers_[slot] || publishers_[slot]->ring_page == nullptr || publishers_[slot]->quarantined) continue;
    bool level = true;
    for_each_shard([&](const Exchange& shard) {
      level = level && shard.publishers_[slot]->block.consumed == publishers_[slot]->block.consumed;
    });
    if (!level) return false;
  }
  return true;
}

// Gives the bus other shards, and its subscriptions to them. True: what is in memory is as it was before, and no longer
// right. A death on the way leaves a bus with some of its subscriptions moved, and no harm in that: all shards have come
// equally far, and are through with what they did.
bool Exchange::divide(std::size_t shards) {
  const std::uint32_t wanted = (1u << shards) - 1;
  std::uint32_t had = 0;
  for_each_shard([&had](const Exchange& shard) { had |= 1u << shard.shard_; });
  if (had == wanted && !is_lopsided(*peers_)) return false;
  if (!are_level()) {
    note({Notice::Level::warning, "shards.kept",
          "the bus keeps the shards of the exchange before this one: they have not come equally far; a start after a "
          "clean stop changes that"});
    return false;
  }
  // A redo that came by what a shard did last would not find it where it was.
  for_each_shard([](Exchange& shard) { shard.begin(shm::TransactionKind::none, 0, 0, 0); });
  for (const auto& ingress : publishers_) {
    if (!ingress || ingress->cursor_page == nullptr) continue;
    for (std::size_t k = 1; k < shards; ++k) {
      if ((had >> k & 1) != 0) continue;
      shm::ShardCursor& cursor = ingress->cursor_page->shards[k];
      shm::IngressBlock block = ingress->block;
      block.n = 0;
      shm::write_block(cursor.version, cursor.blocks, block);
      // release(ingress.consumed): what is before it was read by others
      cursor.consumed.store(block.consumed, std::memory_order_release);
    }
  }
  // release(ingress.consumed): their cursors. A publisher that has seen no position of shard 0 from behind this store waits
  // for none of the new ones, and they begin where that position is at least.
  page_->shards.store(had | wanted, std::memory_order_release);

  std::vector<Queue*> movable;
  for (const auto& queue : queues_) {
    if (queue && queue->role == Role::ordinary) movable.push_back(queue.get());
  }
  const auto busier = [](const Queue* left, const Queue* right) {
    return left->block.matched != right->block.matched ? left->block.matched > right->block.matched
                                                       : left->id < right->id;
  };
  std::sort(movable.begin(), movable.end(), busier);
  std::array<std::uint64_t, shm::max_shards> load{};
  for (const Queue* queue : movable) {
    const std::size_t to = std::min_element(load.begin(), load.begin() + shards) - load.begin();
    load[to] += queue->block.matched + 1;
    if (to == queue->shard) continue;
    queue->state->shard.store(to, std::memory_order_release);  // release(subscription.shard): the bus has the shard
  }
  page_->shards.store(
      wanted,
      std::memory_order_release);  // release(ingress.consumed): the others have read what they ever will
  return true;
}

}  // namespace ackring::exchange
