#include "tools/shmtool/bus_plan.hpp"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "ackring/limits.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/control/topic_table.hpp"
#include "lib/exchange/definition.hpp"
#include "lib/exchange/file_sizes.hpp"
#include "lib/log/segment_log.hpp"
#include "lib/ring/ack_table.hpp"
#include "lib/shm/record_format.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

using exchange::whole_pages;

// What the exchange has open besides what is there for others: stdin, stdout and stderr, the directory of the bus, its lock,
// epoll and the event that stops it, the exchange page, the topic table, the socket, and one in reserve for when it has to
// refuse somebody.
constexpr std::uint64_t exchange_base_descriptors = 11;
constexpr std::uint64_t descriptors_per_shard = 1;      // besides the first: what wakes it
constexpr std::uint64_t descriptors_per_client = 2;     // its connection, and its lock file
constexpr std::uint64_t descriptors_per_publisher = 2;  // its cursor, which may grow, and its bell
constexpr std::uint64_t descriptors_per_member = 1;     // its bell
// A client: stdin, stdout and stderr, its connection, the event of its keeper, its lock file; and a bell for each publisher
// or member.
constexpr std::uint64_t client_base_descriptors = 6;
constexpr std::uint64_t bells_of_endpoint = 1;

// Beyond it, sums would not fit 64 bits; no file system is so large.
constexpr std::uint64_t most_log_bytes = std::uint64_t{1} << 47;

log::LogFiles most_files(std::uint64_t record_bytes, std::uint64_t largest) {
  return log::SegmentLog::most_files(std::min(record_bytes, most_log_bytes), largest);
}

void check_number(const char* option, std::uint64_t number, std::uint64_t limit) {
  if (number <= limit) return;
  throw Failure(status_usage, fmt::format("{} {}: a bus can't have so many: {} are the most", option, number, limit));
}

bool has_dead_letters(const SubscriptionOptions& options) {
  return options.guarantee == at_least_once || options.overflow == Overflow::dead_letter || options.dead_letter_expired;
}

// Adds `count` times a file that has its size all the time.
void add(BusPlan& plan, const char* kind, std::uint64_t count, std::uint64_t bytes) {
  plan.files.push_back({kind, count, count * whole_pages(bytes), count, count * whole_pages(bytes)});
}

void add_log(BusPlan& plan, const char* kind, std::uint64_t count, log::LogFiles most) {
  plan.files.push_back({kind, 0, 0, count * most.files, count * most.bytes});
}

void add_logs(BusPlan& plan, const BusShape& shape) {
  const SubscriptionOptions& options = shape.options;
  std::uint64_t largest = exchange::largest_record_bytes(options);
  if (shape.event_bytes != 0) {
    // What a record has besides: its header, and what is known of its attempts.
    const std::uint64_t more = sizeof(shm::RecordHeader) + shm::record_alignment + sizeof(shm::AttemptInfo);
    largest = std::min(largest, std::min<std::uint64_t>(shape.event_bytes, limits::event_bytes) + more);
  }
  const std::uint64_t most_events =
      options.max_events > options.max_bytes / largest ? options.max_bytes : options.max_events * largest;
  add_log(plan, "backlog", shape.subscriptions, most_files(most_events, largest));
  // No option limits it: what members fail while the back-off of what they failed before lasts. Here each member fails what
  // its ring holds, once.
  const bool retries = options.guarantee == at_least_once;
  const std::uint64_t failed = retries ? shape.members * options.ring_bytes : 0;
  add_log(plan, "retry log", shape.subscriptions, most_files(failed, largest));
  const std::uint64_t dead = has_dead_letters(options) ? options.max_dead_bytes : 0;
  add_log(plan, "dead-letter log", shape.subscriptions, most_files(dead, largest));
}

}  // namespace

BusPlan plan_bus(BusShape shape) {
  SubscriptionOptions& options = shape.options;
  if (shape.members > 1) options.group = true;
  if (options.name.empty()) options.name = std::string(limits::name_bytes, 'x');
  if (options.patterns.empty()) options.patterns = {"#"};
  control::check_options(options);
  check_number("--publishers", shape.publishers, limits::publishers);
  check_number("--subscriptions", shape.subscriptions, limits::subscriptions);
  check_number("--members", shape.members, limits::members);
  const std::uint64_t members = shape.subscriptions * shape.members;
  check_number("--subscriptions times --members", members, limits::members);
  check_number("--topics", shape.topics, limits::topics);
  check_number("--shards", shape.shards, shm::max_shards);
  if (shape.publisher_ring_bytes < limits::min_ring_bytes || shape.publisher_ring_bytes > limits::max_ring_bytes ||
      !std::has_single_bit(shape.publisher_ring_bytes)) {
    throw Failure(status_usage,
                  fmt::format("--publisher-ring {}: is no size of a ring: choose a power of two from 4KiB to "
                              "1GiB",
                              shape.publisher_ring_bytes));
  }

  BusPlan plan;
  const std::uint64_t clients = shape.publishers + members;
  add(plan, "exchange page", 1, sizeof(shm::ExchangeSegment));
  plan.files.push_back({"topic table", 1, control::topics_file_bytes(0, 0), 1,
                        control::topics_file_bytes(shape.topics, limits::topic_bytes)});
  add(plan, "publisher ring", shape.publishers, exchange::ingress_ring_file_bytes(shape.publisher_ring_bytes));
  plan.files.push_back({"publisher cursor", shape.publishers,
                        shape.publishers * whole_pages(exchange::cursor_first_bytes), shape.publishers,
                        shape.publishers * whole_pages(exchange::cursor_file_bytes(shape.topics))});
  add(plan, "subscription", shape.subscriptions, sizeof(shm::SubscriptionSegment));
  add(plan, "definition", shape.subscriptions, exchange::definition_text(options).size());
  add(plan, "member ring", members, exchange::member_ring_file_bytes(options));
  add(plan, "ack page", members, ring::ack_page_bytes(exchange::ring_slots(options)));
  add_logs(plan, shape);
  if (!options.dead_letter_topic.empty()) {  // the exchange publishes dead letters itself, once there are any
    const std::uint64_t bytes = whole_pages(exchange::ingress_ring_file_bytes(limits::default_ring_bytes)) +
                                whole_pages(exchange::cursor_file_bytes(1));
    plan.files.push_back({"dead-letter publisher", 0, 0, 2, bytes});
  }
  add(plan, "lock file", 1 + clients, 1);  // a number in it
  plan.files.push_back({"socket", 1, 0, 1, 0});

  plan.total.kind = "total";
  std::uint64_t log_files = 0;
  for (const PlannedFiles& files : plan.files) {
    plan.total.rest_files += files.rest_files;
    plan.total.rest_bytes += files.rest_bytes;
    plan.total.most_files += files.most_files;
    plan.total.most_bytes += files.most_bytes;
    if (files.rest_files == 0) log_files += files.most_files;
  }
  plan.exchange_descriptors = exchange_base_descriptors + descriptors_per_shard * (shape.shards - 1) +
                              descriptors_per_client * clients + descriptors_per_publisher * shape.publishers +
                              descriptors_per_member * members;
  plan.client_descriptors = client_base_descriptors + bells_of_endpoint;
  // Each shard maps the rings of publishers for itself; the two before are exchange page and topic table.
  plan.rest_mappings = 2 + shape.publishers * (1 + shape.shards) + shape.subscriptions + 2 * members;
  plan.most_mappings = plan.rest_mappings + log_files;
  return plan;
}

}  // namespace ackring::tools
