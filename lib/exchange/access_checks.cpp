// Access checks: what the rules of the bus say to a client's request, before it is carried out. What publishers may publish
// is checked where they define their topics (route.cpp).
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/exchange/service.hpp"

namespace ackring::exchange {

// Asked anew each time, since the rules may be replaced; requests are rare.
control::Permissions Service::permissions_of(const Client& client) const {
  return exchange_.access().of(client.identity);
}

// Whoever resumes a client gets its rings: its number, which is no secret, must not do for another user.
void Service::check_same_user(const Client& before, const Client& client) {
  if (before.identity.uid == client.identity.uid) return;
  throw Error(ErrorCode::permission, "client " + std::to_string(before.id),
              "it is uid " + std::to_string(before.identity.uid) + "'s, and this connection is uid " +
                  std::to_string(client.identity.uid) + "'s",
              "open the bus after a change of user, not before");
}

// A ring is memory, and a place among 1,024: not for those who may publish nothing.
void Service::check_may_publish(const Client& client) const {
  const control::Permissions permissions = permissions_of(client);
  if (permissions.everything || !permissions.publish.empty()) return;
  throw Error(ErrorCode::permission, "publisher",
              "the access rules of the bus do not let uid " + std::to_string(client.identity.uid) + " publish anything",
              "have a rule added that allows it");
}

void Service::check_resumed(const Client& client, Ingress& ingress) {
  const bool ruled = !ingress.permissions.everything || !permissions_of(client).everything;
  std::string why;
  if (ruled && ingress.owner != client.identity) why = "its client has other groups than when it was made";
  // The library defines no topic that is denied. So this one was withdrawn since, perhaps by an exchange before this one.
  for (std::uint32_t topic = 1; topic <= ingress.routes.size() && why.empty(); ++topic) {
    if (!ingress.is_denied(topic)) continue;
    why = "the access rules of the bus have taken a topic of it from uid " + std::to_string(client.identity.uid);
    if (!ingress.withdrawn_topic.empty()) why += ": '" + ingress.withdrawn_topic + "'";
  }
  if (why.empty()) return;
  const std::string object = "publisher '" + ingress.name + "'";
  exchange_.detach_publisher(ingress);  // what it has committed is still looked at
  throw Error(ErrorCode::permission, object, why, "make a new one");
}

void Service::check_resumed(const Client& client, Lane& lane) {
  const control::Permissions permissions = permissions_of(client);
  const Queue& queue = *lane.queue;
  try {
    if (!queue.ephemeral) permissions.require_join(client.identity, queue.options.name);
    permissions.require_subscribe(client.identity, queue.options.patterns);
  } catch (const Error&) {
    exchange_.detach_member(lane);
    throw;
  }
}

void Service::check_subscribe(const Client& client, const SubscriptionOptions& options, bool ephemeral) {
  const control::Permissions permissions = permissions_of(client);
  if (!ephemeral) permissions.require_join(client.identity, options.name);
  const Queue* queue = ephemeral ? nullptr : exchange_.find_queue(options.name);
  // Whoever joins gets what the subscription matches, whatever the request says.
  permissions.require_subscribe(client.identity, queue != nullptr ? queue->options.patterns : options.patterns);
  if (queue == nullptr && !options.dead_letter_topic.empty()) {
    permissions.require_publish(client.identity, options.dead_letter_topic);
  }
}

// To create or to update. What the subscription has already, somebody was allowed to give it.
void Service::check_define(const Client& client, const SubscriptionOptions& options,
                           const std::vector<std::string>& given) {
  const control::Permissions permissions = permissions_of(client);
  permissions.require_operate(client.identity, options.name);
  const Queue* queue = exchange_.find_queue(options.name);
  std::vector<std::string> added = options.patterns;
  std::string letters = options.dead_letter_topic;
  if (queue != nullptr) {
    const std::vector<std::string>& had = queue->options.patterns;
    std::erase_if(added,
                  [&had](const std::string& one) { return std::find(had.begin(), had.end(), one) != had.end(); });
    const bool changed = std::find(given.begin(), given.end(), "dead_letter_topic") != given.end() &&
                         letters != queue->options.dead_letter_topic;
    if (!changed) letters.clear();
  }
  permissions.require_subscribe(client.identity, added);
  if (!letters.empty()) permissions.require_publish(client.identity, letters);
}

void Service::check_operate(const Client& client, const std::string& subscription) const {
  permissions_of(client).require_operate(client.identity, subscription);
}

}  // namespace ackring::exchange
