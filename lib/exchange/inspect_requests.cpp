// Requests that look into a subscription: peek, and explain. Each looks at a bounded part, and answers where the next one
// goes on. Events are handed out as the records they are; turning them into text is for the client.
#include <algorithm>

#include "ackring/error.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/inspect.hpp"
#include "lib/exchange/service.hpp"

namespace ackring::exchange {

using control::Json;

namespace {

InspectCursor cursor_of(const Json& request) {
  InspectCursor cursor;
  if (!request.contains("next")) return cursor;
  const Json& next = request.at("next");
  cursor.stage = next.at("stage").get<std::uint32_t>();
  cursor.lane = next.at("lane").get<std::uint64_t>();
  cursor.position = next.at("position").get<std::uint64_t>();
  cursor.passed = next.at("passed").get<std::uint64_t>();
  return cursor;
}

void add_next(Json& body, const InspectCursor& cursor) {
  body["more"] = cursor.stage != InspectCursor::end;
  if (!body["more"]) return;
  body["next"] = {
      {"stage", cursor.stage}, {"lane", cursor.lane}, {"position", cursor.position}, {"passed", cursor.passed}};
}

// Everything of a record but its payload, of which nothing is said and which may be large.
std::string without_payload(const ring::EventParts& event) {
  const auto* record = reinterpret_cast<const char*>(event.header);
  const auto* payload = reinterpret_cast<const char*>(event.payload);
  const auto* key = reinterpret_cast<const char*>(event.key);
  std::string copy(record, payload);
  copy.append(key, record + event.header->bytes);
  copy.resize(ring::align_record(copy.size()));
  auto* header = reinterpret_cast<shm::RecordHeader*>(copy.data());
  header->payload_bytes = 0;
  header->bytes = static_cast<std::uint32_t>(copy.size());
  return copy;
}

}  // namespace

Reply Service::inspect(const Client& client, const std::string& op, const Json& request) {
  const std::string name = request.at("name").get<std::string>();
  check_operate(client, name);
  Queue* queue = exchange_.find_queue(name);
  if (queue == nullptr) throw no_subscription(name);
  const InspectCursor from = cursor_of(request);
  // So that what members have taken and decided is known; not again in the midst of a walk.
  const std::uint64_t now_ns = shm::Environment::now_ns();
  if (queue->active && !request.contains("next")) exchange_.sweep(*queue, now_ns);
  Reply reply = op == "peek" ? peek_queue(*queue, from, request) : explain_event(*queue, from, request, now_ns);
  reply.body["moves"] = queue->block.n;
  return reply;
}

Reply Service::peek_queue(const Queue& queue, const InspectCursor& from, const Json& request) {
  InspectBounds bounds;
  bounds.events = std::clamp<std::uint64_t>(request.value("at_most", bounds.events), 1, bounds.events);
  std::string records;
  const InspectCursor next = peek(queue, from, bounds, [&records](const ring::EventParts& event) {
    records.append(reinterpret_cast<const char*>(event.header), event.header->bytes);
  });
  Reply reply = document_reply("events of '" + queue.options.name + "'", records);
  add_next(reply.body, next);
  return reply;
}

Reply Service::explain_event(const Queue& queue, const InspectCursor& from, const Json& request,
                             std::uint64_t now_ns) const {
  Wanted wanted;
  wanted.delivery = request.value("delivery", std::uint64_t{0});
  Reply reply;
  if (wanted.delivery == 0) {
    wanted.sequence = request.at("sequence").get<std::uint64_t>();
    const std::string publisher = request.at("publisher").get<std::string>();
    wanted.publisher = publisher_slot(exchange_, publisher);
    if (!is_routed(wanted, publisher, *exchange_.shards()[queue.shard])) {
      reply.body["facts"] = {{"state", "not_routed"}, {"reason", "it is in the ring of its publisher"}};
      reply.body["more"] = false;
      return reply;
    }
  } else if (wanted.delivery > queue.block.matched) {
    throw Error(ErrorCode::not_found, "delivery " + std::to_string(wanted.delivery),
                "subscription '" + queue.options.name + "' has had " + std::to_string(queue.block.matched) + " so far",
                "see `last` of shmtool stat " + queue.options.name);
  }
  const Found found = find(queue, wanted, from, InspectBounds{});
  Json facts = explain(queue, found, now_ns, exchange_.served_at(now_ns));
  if (found.where != Found::Where::nowhere) {
    reply = document_reply("event", without_payload(found.event));
    reply.body["more"] = false;
    if (facts.contains("member")) add_client(facts["member"]);
    reply.body["facts"] = std::move(facts);
    return reply;
  }
  add_next(reply.body, found.next);
  if (reply.body["more"]) return reply;
  facts = explain_gone(queue);
  if (wanted.delivery == 0) {  // nobody remembers what an event matched
    facts = {{"state", "unknown"},
             {"reason",
              "not there: it did not match the subscription, or was settled: " + facts["reason"].get<std::string>()}};
  }
  reply.body["facts"] = std::move(facts);
  return reply;
}

// False: its publisher has committed it, and it waits to be routed. Throws Error (not_found: there is no such event).
bool Service::is_routed(const Wanted& wanted, const std::string& publisher, const Exchange& shard) {
  if (wanted.publisher == no_publisher) {
    throw Error(ErrorCode::not_found, "publisher '" + publisher + "'", "the bus knows none of this name",
                "see shmtool stat");
  }
  const Ingress& ingress = *shard.publishers()[wanted.publisher];
  if (wanted.sequence <= ingress.block.sequence) return true;
  // relaxed: for people; the publisher's word
  const std::uint64_t events =
      ingress.ring_page == nullptr ? 0 : ingress.ring_page->events.load(std::memory_order_relaxed);
  const std::uint64_t done = shm::events_of(ingress.block);
  // As far as the publisher does not number its events itself.
  const std::uint64_t committed = ingress.block.sequence + (events > done ? events - done : 0);
  if (wanted.sequence <= committed) return false;
  throw Error(ErrorCode::not_found, "event " + publisher + "/" + std::to_string(wanted.sequence),
              "its publisher has published " + std::to_string(committed) + " so far", "see shmtool stat");
}

// What is known of the process behind a member.
void Service::add_client(Json& member) const {
  for (const auto& [fd, client] : connected_) {
    if (client->id != member.at("client")) continue;
    member["name"] = client->name;
    try {
      member["pid"] = client->socket.credentials().pid;
    } catch (const Error&) {
      return;  // it is just going
    }
  }
}

}  // namespace ackring::exchange
