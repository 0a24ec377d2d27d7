#include "lib/exchange/route_table.hpp"

#include "lib/exchange/queue.hpp"

namespace ackring::exchange {

void RouteTable::refresh(Route& route, std::string_view text, const std::vector<std::unique_ptr<Queue>>& queues,
                         std::size_t shard) {
  tree_.find(text, found_);
  route.sinks.clear();
  route.timed = route.ids = route.matched = false;
  for (const std::uint32_t number : found_) {
    if (queues[number]->role == Role::event_ids) {
      route.timed = route.ids = true;
      continue;
    }
    route.matched = true;
    if (queues[number]->shard != shard) continue;
    route.sinks.push_back(queues[number].get());
    route.timed = route.timed || queues[number]->options.ttl.count() != 0;
  }
  route.only = route.sinks.size() == 1 && !route.timed ? route.sinks.front() : nullptr;
  route.version = version_;
}

void RouteTable::add(const std::vector<std::string>& patterns, std::uint32_t number) {
  for (const std::string& pattern : patterns) tree_.insert(pattern, number);
  ++version_;
}

void RouteTable::remove(const std::vector<std::string>& patterns, std::uint32_t number) {
  for (const std::string& pattern : patterns) tree_.erase(pattern, number);
  ++version_;
}

}  // namespace ackring::exchange
