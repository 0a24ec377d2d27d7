// A bus of several shards that a test steps one by one: in whichever order, or not at all.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/ring/header_field.hpp"
#include "tests/exchange/core_world.hpp"

namespace ackring::test {

using Texts = std::vector<std::string>;

/// The headers of an event with this id.
inline std::string with_id(std::string_view id) {
  std::string text(ring::header_prefix_bytes, '\0');
  ring::write_header_prefix(reinterpret_cast<std::byte*>(text.data()), event_id_header, id);
  return text.append(event_id_header).append(id);
}

/// A member that acks what it takes, and knows that each publisher's events come in order and once.
struct Reader {
  CoreMember member;
  std::map<std::string, std::uint64_t> last = {};  // sequence, by publisher
  Texts read() {
    Texts texts;
    for (Seen seen; member.take(seen); member.ack_through(seen.entry)) {
      if (seen.attempt == 1) CHECK(seen.sequence > std::exchange(last[seen.publisher], seen.sequence));
      texts.push_back(seen.payload);
    }
    return texts;
  }
};

struct Sharded : World {
  explicit Sharded(std::size_t count = 2) : World(count) {}

  Reader reader(const std::string& name, std::vector<std::string> patterns, const SubscriptionOptions& options = {}) {
    return {member(name, std::move(patterns), options)};
  }
  /// Without a member, and with room for few events: once it has them, it holds up whoever serves it.
  exchange::Queue& blocker(const std::string& name, const std::string& pattern, std::uint64_t max_events = 1) {
    SubscriptionOptions options;
    options.name = name;
    options.patterns = {pattern};
    options.max_events = max_events;
    return x->create_subscription(options, false);
  }
  using World::restart;
  void restart(std::size_t count) {
    shards = count;
    World::restart();
  }
  [[nodiscard]] exchange::Queue& queue(const std::string& name) { return *x->find_queue(name); }
  [[nodiscard]] std::size_t shard_of(const std::string& name) { return queue(name).shard; }
  nlohmann::ordered_json publisher_row(const std::string& name) {
    const auto all = stat();
    for (const auto& row : all["publishers"]) {
      if (row["name"] == name) return row;
    }
    FAIL("no publisher " << name);
    return {};
  }
  [[nodiscard]] std::size_t lines_with(const std::string& text) const {
    std::size_t lines = 0;
    for (const exchange::Notice& notice : x->report()) lines += notice.text.find(text) != std::string::npos ? 1 : 0;
    return lines;
  }
};

/// A holder of no threads: whatever changes the structure of the bus has to wait until it is told to let it happen.
struct CountingHolder final : exchange::ShardHolder {
  void hold_all() override { ++holds; }
  void let_go() override {}
  void call_lead() noexcept override { ++calls; }
  int holds = 0;
  int calls = 0;
};

}  // namespace ackring::test
