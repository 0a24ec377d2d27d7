// Doctor: subscriptions: their definitions, their counters, and their books, counted again by walking.
#include "lib/exchange/doctor_subscription.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include <nlohmann/json.hpp>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/exchange.hpp"

namespace ackring::exchange {

using control::Json;
using shm::DeliveryState;
using shm::SubscriptionSegment;

namespace {

constexpr std::uint64_t total_of(const std::array<std::uint64_t, shm::delivery_states>& totals, DeliveryState state) {
  return totals[static_cast<std::size_t>(state)];
}

}  // namespace

SubscriptionLook::SubscriptionLook(Look& look, std::uint64_t id)
    : look_(look), id_(id), prefix_("sub." + std::to_string(id)), names_(look.names_of_subscription[id]) {}

// False: there is none, or not yet.
bool SubscriptionLook::read_definition() {
  const std::string name = prefix_ + ".json";
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) {
    look_.leftover(name, "no_definition", "a subscription that was being made or removed: its other files are there");
    return false;
  }
  try {
    const Json json = Json::parse(look_.directory.read_file(name));
    if (json.value("beginning", false)) {
      look_.leftover(name, "beginning", "a subscription that was being made");
      return false;
    }
    options_ = control::options_from_json(json.at("name"), json.at("patterns"), json.at("options"));
    ephemeral_ = json.at("ephemeral");
    for (const char* flag : {"paused", "ending", "burying"}) (void)json.at(flag).get<bool>();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::not_found && look_.live) return false;  // removed meanwhile
    look_.violation(name, "definition", error.what());
    return false;
  } catch (const std::exception& error) {
    look_.violation(name, "definition", error.what());
    return false;
  }
  return true;
}

bool SubscriptionLook::open_state() {
  const std::string name = prefix_ + ".state";
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) {
    look_.violation(name, "missing", "the subscription has a definition, but no state");
    return false;
  }
  state_file_ = look_.open(name);
  return state_file_.valid() &&
         look_.check_header(state_file_, shm::SegmentKind::subscription, id_, sizeof(SubscriptionSegment), false);
}

void SubscriptionLook::open_rings() {
  rings_.clear();
  for (const std::string& name : names_) {
    const BusFileName parsed = parse_file_name(name);
    if (parsed.kind != FileKind::ring || name.ends_with(".tmp")) continue;
    auto ring = std::make_unique<Ring>();
    ring->incarnation = parsed.number;
    if (look_.live && !look_.directory.exists(name)) continue;  // retired meanwhile
    ring->file = look_.open(name);
    if (ring->file.valid()) rings_.push_back(std::move(ring));
  }
}

// The words that X changes with everything else that is its own.
std::vector<std::uint64_t> SubscriptionLook::stamp() const {
  std::vector<std::uint64_t> words;
  stamp_intents(look_, words);
  stamp_words(state_file_, offsetof(SubscriptionSegment, version), 4, words);
  stamp_words(state_file_, offsetof(SubscriptionSegment, retry_tail), 6, words);
  for (const auto& ring : rings_) {
    stamp_words(ring->file, offsetof(shm::MemberRing, tail), 1, words);
    stamp_words(ring->file, offsetof(shm::MemberRing, revoked), 1, words);
    stamp_words(ring->file, offsetof(shm::MemberRing, sink), 5, words);
  }
  return words;
}

// Everything but the walks over backlog and dead-letter log, whose records hardly change. False: it moved meanwhile.
bool SubscriptionLook::check_what_moves() {
  if (look_.live) names_ = look_.directory.list(prefix_ + ".");
  open_rings();
  const std::vector<std::uint64_t> before = stamp();
  deliveries_.clear();
  open_entries_ = 0;
  rings_whole_ = true;
  open_transaction_ = false;
  if (!state_file_.read_as(0, *state_)) return false;
  shard_ = std::min<std::uint64_t>(value(state_->shard), shm::max_shards - 1);
  intent_ = look_.last_intent(shard_);
  block_ = state_->blocks[value(state_->version) & 1];
  totals_ = block_.totals;
  check_block();
  for (const auto& ring : rings_) {
    ring->retired = ring->incarnation == block_.retired_ring;
    if (ring->retired) {
      look_.leftover(ring->file.name(), "retired", "a ring that is counted and gone, but for its file");
    } else {
      check_ring(*ring);
    }
  }
  check_slot_owners();
  for (Log* log : {&backlog_, &retry_, &dead_}) open_log(*log);
  walk_log(retry_);
  return stamp() == before;
}

// Has no dead letter left since the block was read? Many may wait there, while others come.
bool SubscriptionLook::dead_letters_stayed() const {
  auto state = std::make_unique<SubscriptionSegment>();
  if (!state_file_.read_as(0, *state)) return false;
  const shm::SubscriptionBlock& now = state->blocks[value(state->version) & 1];
  return now.requeued == block_.requeued && now.dead_removed == block_.dead_removed;
}

void SubscriptionLook::check_block() {
  const std::string& name = state_file_.name();
  const std::uint64_t n = intent_.n;
  if (!look_.has_had(block_.n)) {
    look_.violation(name, "n",
                    "it was counted in transaction " + std::to_string(block_.n) + ", which the bus has not had");
  }
  const std::uint32_t shards = value(look_.page->shards) | 1;
  if (value(state_->shard) >= shm::max_shards || (shards >> value(state_->shard) & 1) == 0) {
    look_.violation(name, "shard",
                    "it belongs to shard " + std::to_string(value(state_->shard)) + ", which the bus does not have");
  }
  const auto read_log = [&](Log& log, std::uint64_t head, std::uint64_t tail, const shm::Sink& sink,
                            std::uint64_t of_n) {
    log.head = head;
    log.tail = tail;
    log.sink_base = value(sink.base);
    log.sink_n = value(sink.n);
    log.of_n = of_n;
    if (look_.has_had(log.sink_n) && (log.sink_n == 0 || log.sink_n != n || log.sink_base <= tail)) return;
    look_.violation(name, "sink",
                    "its " + log.infix + " has a sink of transaction " + std::to_string(log.sink_n) + " from " +
                        std::to_string(log.sink_base) + ", of " + std::to_string(n) + " and up to " +
                        std::to_string(tail));
  };
  read_log(backlog_, block_.backlog_head, value(state_->backlog_tail), state_->backlog, block_.backlog_of_n);
  read_log(retry_, block_.retry_head, value(state_->retry_tail), state_->retry, block_.retry_of_n);
  read_log(dead_, block_.dead_head, value(state_->dead_tail), state_->dead, block_.dead_of_n);
  compare("dead_lettered", "dead letters ever", block_.dead_events + block_.requeued + block_.dead_removed,
          block_.dead_lettered);
  const shm::DeadReasonBlock& reasons = state_->dead_reasons[value(state_->dead_version) & 1];
  // Those of the open transaction are counted by reason first.
  const std::uint64_t ahead = reasons.n != n ? 0 : reasons.dead_of_n - (block_.n == n ? block_.dead_of_n : 0);
  compare("dead_reasons", "dead letters ever, by reason",
          std::accumulate(reasons.counts.begin(), reasons.counts.end(), std::uint64_t{0}),
          block_.dead_lettered + ahead);
  if (!options_.dead_letter_topic.empty() && block_.dead_published > dead_.tail) {
    look_.violation(name, "dead_published",
                    "dead letters are published up to " + std::to_string(block_.dead_published) +
                        ", their log ends at " + std::to_string(dead_.tail));
  }
  if (total_of(block_.totals, DeliveryState::pending) != 0) {
    look_.violation(name, "totals", "pending deliveries are counted as settled");
  }
  if (!dispatched() && rings_.size() > 1) {
    std::size_t there = 0;
    for (const auto& ring : rings_) there += ring->incarnation != block_.retired_ring ? 1 : 0;
    if (there > 1)
      look_.violation(name, "rings", "it has one member at a time, but " + std::to_string(there) + " rings");
  }
}

// Key slots belong to members that are there; of ones that are gone an exchange frees them when it starts.
void SubscriptionLook::check_slot_owners() {
  std::set<std::uint64_t> numbers{0};
  for (const auto& ring : rings_) {
    if (!ring->retired) numbers.insert(ring->page.number);
  }
  for (std::size_t slot = 0; slot < shm::key_slots; ++slot) {
    const std::uint16_t owner = value(state_->slot_owners[slot]);
    const bool possible = options_.ordered_by_key && (numbers.contains(owner) || !(look_.live || look_.stopped));
    if (owner == 0 || possible) continue;
    look_.violation(
        state_file_.name(), "slot_owner",
        "key slot " + std::to_string(slot) + " belongs to member " + std::to_string(owner) + ", who is not there");
    return;
  }
}

void SubscriptionLook::note_event(const RecordLook& record, const std::string& file) {
  ++look_.report.events;
  look_.topics_used.emplace(record.header.topic, file);
  look_.slots_used.emplace(record.header.publisher, file);
}

void SubscriptionLook::compare(const std::string& check, const std::string& counter, std::uint64_t walked,
                               std::uint64_t written) {
  if (walked == written) return;
  look_.violation(state_file_.name(), check,
                  counter + ": " + std::to_string(walked) + " counted, " + std::to_string(written) + " written");
}

void SubscriptionLook::check_counts() {
  if (backlog_.whole) {
    compare("backlog_events", "events of the backlog", backlog_.events, block_.backlog_events);
    compare("backlog_bytes", "bytes of the backlog", backlog_.bytes, block_.backlog_bytes);
    if (backlog_.timed && block_.backlog_expires == 0) {
      look_.violation(state_file_.name(), "backlog_expires",
                      "events of the backlog have times, and it says that none has");
    }
  }
  if (retry_.whole) {
    compare("retry_events", "events of the retry log", retry_.events, block_.retry_events);
    compare("retry_bytes", "bytes of the retry log", retry_.bytes, block_.retry_bytes);
    compare("delayed_events", "events of the retry log that wait for no new attempt", retry_.delayed_events,
            block_.delayed_events);
    compare("delayed_bytes", "bytes of the retry log that wait for no new attempt", retry_.delayed_bytes,
            block_.delayed_bytes);
  }
  if (dead_.whole) {
    compare("dead_events", "dead letters", dead_.events, block_.dead_events);
    compare("dead_bytes", "bytes of dead letters", dead_.bytes, block_.dead_bytes);
  }
}

// An event is in one place: its number is nowhere else, and was given.
void SubscriptionLook::check_deliveries() {
  std::sort(deliveries_.begin(), deliveries_.end());
  const auto twice = std::adjacent_find(deliveries_.begin(), deliveries_.end());
  if (twice != deliveries_.end()) {
    look_.violation(state_file_.name(), "delivery_twice", "delivery " + std::to_string(*twice) + " is in two places");
  }
  if (!deliveries_.empty() && deliveries_.back() > block_.matched) {
    look_.violation(state_file_.name(), "delivery",
                    "delivery " + std::to_string(deliveries_.back()) + " is there, the last one was " +
                        std::to_string(block_.matched));
  }
}

void SubscriptionLook::check_books() {
  if (!rings_whole_ || !backlog_.whole || !retry_.whole || !dead_.whole) return;
  const std::uint64_t acked = total_of(totals_, DeliveryState::acked);
  const std::uint64_t dropped = block_.dropped_newest + block_.dropped_oldest + block_.dropped_too_large;
  const std::uint64_t sum = acked + open_entries_ + backlog_.events + retry_.events + dead_.events +
                            block_.dead_removed + dropped + block_.expired + block_.purged;
  if (sum == block_.matched) return;
  look_.violation(state_file_.name(), "books",
                  "matched " + std::to_string(block_.matched) + ", but acked " + std::to_string(acked) +
                      " + in rings " + std::to_string(open_entries_) + " + backlog " + std::to_string(backlog_.events) +
                      " + retry log " + std::to_string(retry_.events) + " + dead letters " +
                      std::to_string(dead_.events) + " + removed ones " + std::to_string(block_.dead_removed) +
                      " + dropped " + std::to_string(dropped) + " + expired " + std::to_string(block_.expired) +
                      " + purged " + std::to_string(block_.purged) + " = " + std::to_string(sum));
}

void SubscriptionLook::check() {
  if (!read_definition()) return;
  ++look_.report.subscriptions;
  look_.uses_file_number(id_, prefix_ + ".json");
  if (!open_state()) return;
  const bool still = until_it_stands_still(look_, [this] { return check_what_moves(); });
  if (!still) {
    if (look_.live && !look_.directory.exists(prefix_ + ".json")) return;
    look_.add(Gravity::note, state_file_.name(), "moves",
              "subscription " + options_.name + " moved whenever it was looked at: its counts were not compared");
    return;
  }
  walk_log(backlog_);
  walk_log(dead_);
  if (look_.live && !dead_letters_stayed()) dead_.whole = false;
  check_counts();
  check_deliveries();
  check_books();
  bool member = false;
  for (const auto& ring : rings_) member = member || (!ring->retired && value(ring->page.ack_page) != 0);
  if (ephemeral_ && !member && look_.live) {
    look_.violation(prefix_ + ".json", "ephemeral", "an ephemeral subscription without a member");
  }
  const auto source = look_.counted_through.find(intent_.source);
  const bool route_open = intent_.kind == shm::TransactionKind::route && counted() && intent_.n != 0 &&
                          source != look_.counted_through.end() && source->second[shard_] != intent_.n;
  if (open_transaction_ || route_open) look_.open_transaction = shard_;
}

void check_subscriptions(Look& look) {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, names] : look.names_of_subscription) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  std::set<std::string> called;
  for (const std::uint64_t id : ids) {
    SubscriptionLook subscription(look, id);
    subscription.check();
    if (!subscription.name().empty() && !called.insert(subscription.name()).second) {
      look.violation("sub." + std::to_string(id) + ".json", "name_twice",
                     "'" + subscription.name() + "' is the name of another subscription, too");
    }
  }
}

}  // namespace ackring::exchange
