// What the service tells an operator: who comes and goes, and why, what was refused, and what people did to subscriptions.
// Nothing is put together unless somebody wants to hear it.
#include "ackring/error.hpp"
#include "lib/exchange/service.hpp"

namespace ackring::exchange {

namespace {

using Level = Notice::Level;
using Fields = std::vector<std::pair<const char*, Notice::Value>>;

std::string who(const Client& client) {
  std::string text = client.id == 0 ? "a client" : "client " + std::to_string(client.id);
  if (!client.name.empty()) text += " (" + client.name + ")";
  return text + " of uid " + std::to_string(client.identity.uid);
}

Fields fields_of(const Client& client) {
  Fields fields;
  if (client.id != 0) fields.emplace_back("client", client.id);
  if (!client.name.empty()) fields.emplace_back("name", client.name);
  fields.emplace_back("uid", std::uint64_t{client.identity.uid});
  return fields;
}

template <class... More>
Fields fields_of(const Client& client, More&&... more) {
  Fields fields = fields_of(client);
  (fields.push_back(std::forward<More>(more)), ...);
  return fields;
}

using Field = Fields::value_type;

std::string title(const Ingress& ingress) {
  return ingress.name.empty() ? "an anonymous publisher" : "publisher " + ingress.name;
}

}  // namespace

void Service::tell_joined(const Client& client, bool again) const {
  if (!sink_) return;
  sink_({Level::info, again ? "client.returned" : "client.joined", who(client) + (again ? " is back" : " joined"),
         fields_of(client)});
}

void Service::tell_turned_away(const Client& client, const std::string& why) const {
  if (!sink_) return;
  sink_({Level::warning, "client.refused", who(client) + " was refused: " + why, fields_of(client, Field{"why", why})});
}

void Service::tell_dropped(const Client& client, const std::string& why) const {
  if (!sink_) return;
  sink_({Level::warning, "client.dropped", "the connection of " + who(client) + " was closed: " + why,
         fields_of(client, Field{"why", why})});
}

// Its lock is free. What it holds still, it has not given back: most likely its process has died.
void Service::tell_gone(const Client& client) {
  if (!sink_) return;
  std::uint64_t publishers = 0;
  std::uint64_t members = 0;
  for (const auto& ingress : exchange_.publishers()) {
    if (!ingress || ingress->client != client.id) continue;
    ++publishers;
    tell_publisher(client, *ingress, "publisher.closed", "gone");
  }
  for (const auto& queue : exchange_.queues()) {
    if (!queue) continue;
    queue->each_lane([&](const Lane& lane) {
      if (!lane.has_member() || lane.client != client.id) return;
      ++members;
      tell_member(client, *queue, "member.left", "gone");
    });
  }
  const bool gone = publishers + members != 0;
  sink_({Level::info, "client.left",
         who(client) + (gone ? " is gone without a word: it held " + std::to_string(publishers) + " publishers and " +
                                   std::to_string(members) + " members"
                             : " left"),
         fields_of(client, Field{"why", std::string(gone ? "gone" : "left")}, Field{"publishers", publishers},
                   Field{"members", members})});
}

void Service::tell_refused(const Client& client, const Json& request, const Error& error) const {
  if (!sink_) return;
  const bool harmless = error.code() != ErrorCode::permission && error.code() != ErrorCode::no_space &&
                        error.code() != ErrorCode::layout_mismatch && error.code() != ErrorCode::damaged;
  const std::string op = request.value("op", "");
  sink_({harmless ? Level::debug : Level::warning, "request.refused",
         "request " + op + " of " + who(client) + " was refused: " + error.what(),
         fields_of(client, Field{"op", op}, Field{"code", std::string(to_string(error.code()))},
                   Field{"why", std::string(error.what())})});
}

void Service::tell_publisher(const Client& client, const Ingress& ingress, const char* event, const char* how) const {
  if (!sink_) return;
  sink_({Level::info, event, title(ingress) + " of " + who(client) + ": " + how,
         fields_of(client, Field{"publisher", ingress.name}, Field{"slot", std::uint64_t{ingress.slot}},
                   Field{"why", std::string(how)})});
}

void Service::tell_member(const Client& client, const Queue& queue, const char* event, const char* how) const {
  if (!sink_) return;
  sink_({Level::info, event, "a member of subscription " + queue.options.name + ", " + who(client) + ": " + how,
         fields_of(client, Field{"subscription", queue.options.name}, Field{"why", std::string(how)})});
}

void Service::tell_subscription(const Client& client, const std::string& name, const char* event,
                                const char* what) const {
  if (!sink_) return;
  sink_({Level::info, event, "subscription " + name + ": " + what + " by " + who(client),
         fields_of(client, Field{"subscription", name})});
}

// After the request was carried out.
void Service::tell_operated(const Client& client, const std::string& op, const Json& request) const {
  if (!sink_ || op == "subscription_get") return;
  const std::string name = request.at("name").get<std::string>();
  if (op == "subscription_create") {
    tell_subscription(client, name, "subscription.created", "created");
  } else if (op == "subscription_update") {
    tell_subscription(client, name, "subscription.updated", "updated");
  } else if (op == "subscription_pause") {
    tell_subscription(client, name, "subscription.paused", "paused");
  } else if (op == "subscription_resume") {
    tell_subscription(client, name, "subscription.resumed", "resumed");
  } else if (op == "subscription_purge") {
    tell_subscription(client, name, "subscription.purged", "purged");
  } else if (op == "subscription_remove") {
    if (exchange_.find_queue(name) == nullptr) {
      tell_subscription(client, name, "subscription.removed", "removed");
    } else {
      tell_subscription(client, name, "subscription.ending", "ended: it goes when nothing is left in it");
    }
  }
}

}  // namespace ackring::exchange
