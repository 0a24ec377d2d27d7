// Requests about dead letters. Each does a bounded part, and answers where the next one goes on: X waits for nobody, and
// nobody waits long for X. Letters are handed out as the records they are; turning them into text is for the client.
#include <algorithm>
#include <limits>

#include "ackring/error.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/inspect.hpp"
#include "lib/exchange/service.hpp"

namespace ackring::exchange {

Reply Service::dead_letters(const Client& client, const std::string& op, const Json& request) {
  const std::string name = request.at("name").get<std::string>();
  check_operate(client, name);
  Queue* queue = exchange_.find_queue(name);
  if (queue == nullptr) throw no_subscription(name);
  DeadLetterFilter filter;
  filter.delivery = request.value("delivery", std::uint64_t{0});
  filter.sequence = request.value("sequence", std::uint64_t{0});
  filter.reason = request.value("reason", "");
  filter.from = request.value("from", std::uint64_t{0});
  // What dies from now on, perhaps of this very requeue, is not meant.
  filter.until = request.value("until", queue->dead.tail());
  filter.at_most = std::clamp<std::uint64_t>(request.value("at_most", filter.at_most), 1, filter.at_most);
  if (filter.sequence != 0) filter.publisher = publisher_slot(exchange_, request.at("publisher").get<std::string>());

  Reply reply;
  DeadLetterResult result;
  const std::uint64_t now_ns = shm::Environment::now_ns();
  if (queue->active) exchange_.sweep(*queue, now_ns);
  if (op == "dead_letters") {
    std::string records;
    result = Exchange::walk_dead(*queue, filter, [&records](std::uint64_t, const ring::EventParts& event) {
      records.append(reinterpret_cast<const char*>(event.header), event.header->bytes);
      return true;
    });
    reply = document_reply("dead letters", records);
  } else if (op == "dead_requeue") {
    result = exchange_.requeue_dead(*queue, filter, now_ns);
    if (result.no_room && result.done == 0) {
      throw Error(ErrorCode::no_space, "dead letters of '" + name + "'",
                  "the file system of the bus has no room for what would be requeued",
                  "make room there, or purge dead letters that nobody needs");
    }
  } else if (op == "dead_purge") {
    result = exchange_.purge_dead(*queue, filter);
  } else {
    throw Error(ErrorCode::protocol, "request '" + op.substr(0, 64) + "'", "there is no such operation");
  }
  reply.body = {{"done", result.done}, {"more", result.more || result.no_room}};
  if (result.more || result.no_room) {
    reply.body["next"] = result.next;
    reply.body["until"] = filter.until;
  }
  return reply;
}

}  // namespace ackring::exchange
