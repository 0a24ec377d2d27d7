// Subscriptions are made, changed, found and removed. A subscription exists when its definition file does.
#include <algorithm>
#include <chrono>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/definition.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/file_sizes.hpp"

namespace ackring::exchange {

using control::Json;

namespace {

constexpr std::chrono::minutes default_id_window{2};

void complete_reserved(SubscriptionOptions& options) {
  if (options.name == event_ids_name && options.ttl.count() == 0) options.ttl = default_id_window;
}

}  // namespace

void Exchange::check_same_options(const Queue& queue, const SubscriptionOptions& options,
                                  const std::vector<std::string>& given) const {
  const auto refuse = [&](const std::string& option) {
    throw Error(ErrorCode::option_mismatch, "subscription '" + queue.options.name + "'",
                "it exists with another value of '" + option + "'",
                "leave the option out, or change it with `shmtool subscription update`");
  };
  if (!options.patterns.empty()) {
    std::vector<std::string> have = queue.options.patterns;
    std::vector<std::string> want = options.patterns;
    std::sort(have.begin(), have.end());
    std::sort(want.begin(), want.end());
    if (have != want) refuse("patterns");
  }
  for (const Json& option : control::differing_options(options, queue.options)) {
    if (std::find(given.begin(), given.end(), option.get<std::string>()) != given.end()) refuse(option);
  }
}

Queue* Exchange::find_queue(std::string_view name) noexcept {
  const auto at = peers_->by_name.find(std::string(name));
  return at == peers_->by_name.end() ? nullptr : at->second;
}

Queue* Exchange::find_queue(std::uint64_t id) noexcept {
  const auto at = peers_->by_id.find(id);
  return at == peers_->by_id.end() ? nullptr : at->second;
}

Ingress* Exchange::find_publisher(std::uint16_t slot, std::uint64_t incarnation) noexcept {
  if (slot >= publishers_.size() || !publishers_[slot]) return nullptr;
  Ingress* ingress = publishers_[slot].get();
  return ingress->incarnation == incarnation && ingress->ring_page != nullptr ? ingress : nullptr;
}

std::map<std::uint64_t, uid_t> Exchange::holders() const {
  std::map<std::uint64_t, uid_t> clients;
  for (const auto& ingress : publishers_) {
    if (ingress && ingress->client != 0) clients.emplace(ingress->client, ingress->owner.uid);
  }
  for (const auto& queue : queues_) {
    if (!queue) continue;
    queue->each_lane([&clients](const Lane& lane) {
      if (lane.client == 0) return;
      // relaxed: X is the only writer
      clients.emplace(lane.client, lane.ring_page->owner.load(std::memory_order_relaxed));
    });
  }
  return clients;
}

Queue& Exchange::add_queue(std::unique_ptr<Queue> queue) {
  if (peers_->free_indexes.empty()) {
    peers_->free_indexes.push_back(static_cast<std::uint32_t>(queues_.size()));
    queues_.emplace_back();
  }
  const std::uint32_t index = peers_->free_indexes.back();
  peers_->free_indexes.pop_back();
  queue->index = index;
  if (queue->options.name == last_values_name) {
    queue->role = Role::last_values;
    last_values_ = std::make_unique<LastValues>(*queue);
  } else if (queue->options.name == event_ids_name) {
    queue->role = Role::event_ids;
    event_ids_ = std::make_unique<EventIds>(*queue);
  }
  if (queue->options.ordered_by_key && !queue->keys) queue->keys = std::make_unique<KeySlots>();
  queue->largest_record = largest_record_bytes(queue->options);
  change_routes(*queue, queue->options.patterns, true);
  if (!queue->options.name.empty()) peers_->by_name[queue->options.name] = queue.get();
  peers_->by_id[queue->id] = queue.get();
  queues_[index] = std::move(queue);
  return *queues_[index];
}

std::string definition_text(const SubscriptionOptions& options, const Life& life) {
  const Json definition = {{"name", options.name},        {"patterns", options.patterns},
                           {"ephemeral", life.ephemeral}, {"paused", life.paused},
                           {"ending", life.ending},       {"burying", life.burying},
                           {"beginning", life.beginning}, {"options", control::options_to_json(options)}};
  return definition.dump(2) + "\n";
}

void Exchange::save_definition(const Queue& queue) {
  const Life life{queue.ephemeral, queue.paused, queue.ending, queue.burying, queue.beginning};
  shm::Environment::at(shm::CrashPoint::subscription_define);
  directory_.write_file("sub." + std::to_string(queue.id) + ".json", definition_text(queue.options, life));
}

Queue& Exchange::create_subscription(const SubscriptionOptions& options, bool ephemeral) {
  control::check_options(options);
  if (options.patterns.empty()) {
    throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'", "it has no pattern",
                "give at least one, such as '#'");
  }
  if (!ephemeral && find_queue(options.name) != nullptr) {
    throw Error(ErrorCode::busy, "subscription '" + options.name + "'", "one of this name exists",
                "update it, or use another name");
  }
  check_letter_cycle(options);
  if (peers_->by_name.size() >= limits::subscriptions) {
    throw Error(ErrorCode::no_space, "subscription '" + options.name + "'",
                "the bus has its 16,384 subscriptions already", "remove some");
  }
  const std::uint64_t id = next_file();
  const std::size_t shard = shard_for(options, options.from);
  auto queue = std::make_unique<Queue>(directory_, id, generation_);
  queue->set_options(options);
  queue->options.from = StartFrom::now;  // it has begun when it is there
  queue->beginning = options.from == StartFrom::last_values;
  queue->ephemeral = ephemeral;
  queue->shard = shard;
  complete_reserved(queue->options);
  if (ephemeral) {
    queue->options.name = "ephemeral-" + std::to_string(id);
    while (find_queue(queue->options.name) != nullptr) queue->options.name += "-";  // a user may have named one so
  }
  shm::Environment::at(shm::CrashPoint::subscription_create);
  const std::string state_file = "sub." + std::to_string(id) + ".state";
  queue->state_segment = shm::Segment::create(
      directory_, state_file, shm::SegmentKind::subscription, sizeof(shm::SubscriptionSegment), generation_, id,
      [shard](std::byte* base) {
        auto* page = reinterpret_cast<shm::SubscriptionSegment*>(base);
        page->shard.store(shard, std::memory_order_relaxed);                       // relaxed: nobody knows the file
        page->backlog_tail.store(log::first_position, std::memory_order_relaxed);  // relaxed: nobody knows the file
        page->retry_tail.store(log::first_position, std::memory_order_relaxed);    // relaxed: as above
        page->dead_tail.store(log::first_position, std::memory_order_relaxed);     // relaxed: as above
        page->blocks[0].backlog_head = log::first_position;
        page->blocks[0].retry_head = page->blocks[0].dead_head = log::first_position;
      });
  queue->state_segment.close_fd();
  queue->state = queue->state_segment.as<shm::SubscriptionSegment>();
  queue->block.backlog_head = log::first_position;
  queue->block.retry_head = queue->block.dead_head = log::first_position;
  for (log::SegmentLog* log : {&queue->backlog, &queue->retry, &queue->dead}) {
    log->open(log::first_position, log::first_position, {});  // the number is new: no file bears it
  }
  try {
    save_definition(*queue);
  } catch (const Error&) {
    directory_.remove(state_file);
    throw;
  }
  Queue& made = add_queue(std::move(queue));
  if (!made.beginning) return made;
  try {
    begin_with_last_values(made);
    made.beginning = false;
    save_definition(made);
  } catch (const Error&) {
    (void)try_to_remove(made);
    throw;
  }
  return made;
}

void Exchange::update_subscription(const SubscriptionOptions& options, const std::vector<std::string>& given) {
  Queue* queue = find_queue(options.name);
  if (queue == nullptr) {
    throw Error(ErrorCode::not_found, "subscription '" + options.name + "'", "there is none of this name", "create it");
  }
  Json merged = control::options_to_json(queue->options);
  const Json wanted = control::options_to_json(options);
  for (const std::string& option : given) {
    if (!wanted.contains(option)) continue;
    const bool fixed = option == "guarantee" || option == "ring_bytes" || option == "max_in_flight" ||
                       option == "group" || option == "ordered" || option == "ordered_by_key";
    if (fixed && merged[option] != wanted[option]) {
      throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'",
                  "its " + option + " can't change once it exists", "remove it and create it again");
    }
    merged[option] = wanted[option];
  }
  const SubscriptionOptions before = queue->options;
  queue->options =
      control::options_from_json(before.name, options.patterns.empty() ? before.patterns : options.patterns, merged);
  queue->options.from = StartFrom::now;
  complete_reserved(queue->options);
  try {
    check_letter_cycle(queue->options);
    save_definition(*queue);
  } catch (const Error&) {
    queue->options = before;
    throw;
  }
  if (before.dead_letter_topic.empty() && !queue->options.dead_letter_topic.empty()) {
    queue->block.dead_published = queue->dead.tail();  // from now on
    write_counters(*queue);
  }
  change_routes(*queue, before.patterns, false);
  change_routes(*queue, queue->options.patterns, true);
  owner_of(*queue).activate(*queue);  // what waits may have expired by now, or have room
}

void Exchange::remove_subscription(Queue& queue) {
  if (queue.shard != shard_) return owner_of(queue).remove_subscription(queue);
  const std::string prefix = "sub." + std::to_string(queue.id);
  shm::Environment::at(shm::CrashPoint::subscription_remove);
  // From here on it does not exist; recovery would remove the rest. A rename, since what can't be removed would be taken
  // for a subscription whose other files are missing.
  directory_.rename(prefix + ".json", prefix + ".json.tmp");
  directory_.remove(prefix + ".json.tmp");
  change_routes(queue, queue.options.patterns, false);
  peers_->by_name.erase(queue.options.name);
  peers_->by_id.erase(queue.id);
  std::erase(active_, &queue);
  std::erase(touched_, &queue);
  queue.each_lane([&](const Lane& lane) {
    if (lane.ack_incarnation != 0) directory_.remove(ack_name(queue.id, lane.ack_incarnation));
    if (lane.has_ring) directory_.remove(ring_name(queue.id, lane.ring_incarnation));
  });
  queue.backlog.remove_all();
  queue.retry.remove_all();
  queue.dead.remove_all();
  directory_.remove(prefix + ".state");
  if (queue.role == Role::last_values) last_values_.reset();
  if (queue.role == Role::event_ids) event_ids_.reset();
  peers_->free_indexes.push_back(queue.index);
  queues_[queue.index].reset();
}

// False: the system refuses it for now, or other shards are running.
bool Exchange::try_to_remove(Queue& queue) {
  if (!may_change()) return false;
  try {
    remove_subscription(queue);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace ackring::exchange
