// Requests: what clients ask of the exchange over the control socket.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "ackring/error.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/latency.hpp"
#include "lib/exchange/service.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

namespace {

control::Json error_body(const Error& error) {
  return {{"ok", false},        {"code", to_string(error.code())}, {"object", error.object()},
          {"why", error.why()}, {"advice", error.advice()},        {"errno", error.system_errno()}};
}

// Whose client it is, for a successor of X, if the client should hold nothing else by which X knows it. It may write there,
// but a lie does it alone harm. Where the file system is full it goes without: people have to get in to make room, and a client
// of another user that holds nothing then starts anew after a restart.
void note_owner(int lock_file, uid_t uid) {
  const std::string owner = std::to_string(uid) + "\n";
  if (::pwrite(lock_file, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size())) {
    [[maybe_unused]] const int emptied = ::ftruncate(lock_file, 0);
  }
}

std::uint64_t bell_tag(const Lane& lane) {
  return tag(Source::queue, std::uint64_t{lane.queue->index} << 16 | lane.number);
}

}  // namespace

void Service::handle(int fd, Client& client, control::Message& message) {
  Reply reply;
  const Json& request = message.body;
  const Json id = request.contains("id") ? request["id"] : Json();
  std::string closing;
  const ShardHold held(exchange_.peers());
  try {
    if (!message.descriptors.empty()) throw Error(ErrorCode::protocol, "request", "it carries descriptors");
    const std::string op = request.at("op").get<std::string>();
    if (op == "hello") {
      reply = hello(client, request);
    } else if (op == "ping") {
      reply.body["state"] = "running";
    } else if (op == "stat") {
      reply = stat();
    } else if (client.id == 0) {
      throw Error(ErrorCode::protocol, "request '" + op + "'", "hello must come first");
    } else if (op == "publisher") {
      reply = publisher(client, request);
    } else if (op == "publisher_close") {
      reply = publisher_close(client, request);
    } else if (op == "subscribe") {
      reply = subscribe(client, request);
    } else if (op == "unsubscribe") {
      reply = unsubscribe(client, request);
    } else if (op == "settle") {
      reply = settle(client, request);
    } else if (op.starts_with("dead_")) {
      reply = dead_letters(client, op, request);
    } else if (op == "peek" || op == "explain") {
      reply = inspect(client, op, request);
    } else if (op.starts_with("subscription_")) {
      reply = subscription(client, op, request);
      tell_operated(client, op, request);
    } else {
      throw Error(ErrorCode::protocol, "request '" + op.substr(0, 64) + "'", "there is no such operation");
    }
    reply.body["ok"] = true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::protocol) tell_refused(client, request, error);
    reply = {};
    reply.body = error_body(error);
    if (error.code() == ErrorCode::protocol) closing = error.what();
  } catch (const nlohmann::json::exception& error) {
    closing = std::string("a field is missing or of the wrong type: ") + error.what();
  }
  if (!closing.empty()) {
    drop(fd, closing);
    return;
  }
  if (id.is_null()) return;  // nobody waits for an answer
  reply.body["id"] = id;
  answer(fd, client, std::move(reply));
}

Reply Service::hello(Client& client, const Json& request) {
  if (client.id != 0) throw Error(ErrorCode::protocol, "hello", "it came twice");
  const std::uint32_t layout = request.at("layout").get<std::uint32_t>();
  if (layout != shm::layout_version) {
    throw Error(ErrorCode::layout_mismatch, "bus '" + bus_ + "'",
                "the exchange has layout version " + std::to_string(shm::layout_version) + ", this client has " +
                    std::to_string(layout),
                "use the same release of ackring on both sides");
  }
  Reply reply;
  client.name = request.value("name", "");
  exchange_.set_fence_required(!request.at("membarrier").get<bool>());
  const std::uint64_t resumed = request.value("client", std::uint64_t{0});
  reply.descriptors.push_back(directory_.open("exchange", false));
  reply.descriptors.push_back(directory_.open("topics", false));
  if (resumed != 0) {
    if (!away_.contains(resumed)) let_go_of(resumed);
    const auto at = away_.find(resumed);
    if (at == away_.end()) {
      const auto connected = [&](const auto& entry) {
        return entry.second->id == resumed && entry.second->identity.uid == client.identity.uid;
      };
      if (std::any_of(connected_.begin(), connected_.end(), connected)) {
        throw Error(ErrorCode::busy, "client " + std::to_string(resumed), "its earlier connection is still open",
                    "close that one");
      }
      throw Error(ErrorCode::not_found, "client " + std::to_string(resumed), "the exchange does not know it any more",
                  "open the bus again");
    }
    check_same_user(*at->second, client);
    client.id = resumed;
    client.lock_file = std::move(at->second->lock_file);
    away_.erase(at);
  } else {
    const std::uint64_t id = exchange_.new_client();
    shm::UniqueFd lock = directory_.create(lock_name(id));
    try {
      shm::try_lock(lock.get());
      note_owner(lock.get(), client.identity.uid);
      client.lock_file = directory_.open(lock_name(id), true);
    } catch (const Error&) {
      directory_.remove(lock_name(id));
      throw;
    }
    reply.descriptors.push_back(
        std::move(lock));  // X's copy is closed once it is sent: the client alone holds the lock
    client.id = id;
  }
  // relaxed: notices
  reply.body = {{"client", client.id},
                {"generation", exchange_.generation()},
                {"fence", exchange_.page().fence_required.load(std::memory_order_relaxed) != 0},
                {"bus", bus_},
                {"pid", exchange_.page().pid.load(std::memory_order_relaxed)}};  // relaxed: a notice
  const control::Permissions permissions = permissions_of(client);
  if (!permissions.everything) reply.body["publish"] = permissions.publish;
  tell_joined(client, resumed != 0);
  return reply;
}

Reply Service::publisher(Client& client, const Json& request) {
  Reply reply;
  Ingress* ingress = nullptr;
  if (request.contains("resume")) {
    const Json& resume = request["resume"];
    ingress =
        exchange_.find_publisher(resume.at("slot").get<std::uint16_t>(), resume.at("incarnation").get<std::uint64_t>());
    if (ingress == nullptr || ingress->client != client.id) {
      throw Error(ErrorCode::not_found, "publisher", "the exchange does not know this incarnation", "make a new one");
    }
    check_resumed(client, *ingress);
    reply.body = {{"slot", ingress->slot}, {"incarnation", ingress->incarnation}, {"name", ingress->name}};
  } else {
    check_may_publish(client);
    const auto name = request.at("name").get<std::string>();
    // Who asks for a name that he holds, and has not resumed since the last exchange died, never got its answer.
    for (const auto& held : exchange_.publishers()) {
      const bool his = held && held->client == client.id && held->name == name && !name.empty();
      if (his && !held->has_bell) exchange_.detach_publisher(*held);
    }
    const PublisherGrant grant =
        exchange_.attach_publisher(client.id, name, request.at("ring_bytes").get<std::uint64_t>(), client.identity);
    ingress = exchange_.find_publisher(grant.slot, grant.incarnation);
    try {
      reply.descriptors.push_back(directory_.open(grant.ring_file, true));
      reply.descriptors.push_back(directory_.open(grant.cursor_file, false));
      ingress->bell = new_bell(tag(Source::publisher, ingress->slot), client.user, reply);
    } catch (const Error&) {
      exchange_.detach_publisher(*ingress);  // nobody will have heard of it
      throw;
    }
    reply.body = {{"slot", grant.slot},
                  {"incarnation", grant.incarnation},
                  {"name", grant.name},
                  {"next_sequence", grant.next_sequence},
                  {"ring_bytes", request.at("ring_bytes")}};
    tell_publisher(client, *ingress, "publisher.opened", "opened");
  }
  if (reply.descriptors.empty()) ingress->bell = new_bell(tag(Source::publisher, ingress->slot), client.user, reply);
  ingress->has_bell = true;
  exchange_.heat(*ingress);
  return reply;
}

Reply Service::publisher_close(Client& client, const Json& request) {
  Ingress* ingress =
      exchange_.find_publisher(request.at("slot").get<std::uint16_t>(), request.at("incarnation").get<std::uint64_t>());
  if (ingress == nullptr || ingress->client != client.id) return {};
  tell_publisher(client, *ingress, "publisher.closed", "closed");
  exchange_.detach_publisher(*ingress);
  return {};
}

Reply Service::subscribe(Client& client, const Json& request) {
  Reply reply;
  Lane* lane = nullptr;
  if (request.contains("resume")) {
    lane = &lane_of(client, request["resume"]);
    check_resumed(client, *lane);
    reply.body = {{"subscription", lane->queue->id}, {"name", lane->queue->options.name}};
  } else {
    const bool ephemeral = request.at("ephemeral").get<bool>();
    const SubscriptionOptions options =
        control::options_from_json(request.at("name").get<std::string>(),
                                   request.at("patterns").get<std::vector<std::string>>(), request.at("options"));
    check_subscribe(client, options, ephemeral);
    // As for publishers. Of a group he may be several members, of which some are still to be resumed.
    Queue* held = ephemeral ? nullptr : exchange_.find_queue(options.name);
    if (held != nullptr && !held->dispatched() && held->lane.client == client.id && !held->lane.bell) {
      exchange_.detach_member(held->lane);
    }
    const bool existed = held != nullptr;
    const MemberGrant grant = exchange_.attach_member(
        client.id, options, ephemeral, request.value("given", std::vector<std::string>{}), client.identity);
    lane = grant.lane;
    const Queue* queue = grant.queue;
    try {
      reply.descriptors.push_back(directory_.open(grant.ring_file, false));
      reply.descriptors.push_back(directory_.open(grant.ack_file, true));
      lane->bell = new_bell(bell_tag(*lane), client.user, reply);
    } catch (const Error&) {
      exchange_.detach_member(*lane);  // nobody will have heard of it
      throw;
    }
    reply.body = {{"subscription", queue->id},         {"name", queue->options.name},
                  {"ack_page", lane->ack_incarnation}, {"entry", grant.entry},
                  {"position", grant.position},        {"options", control::options_to_json(queue->options)}};
    if (!existed && !ephemeral) tell_subscription(client, queue->options.name, "subscription.created", "created");
    tell_member(client, *queue, "member.joined", "joined");
  }
  if (reply.descriptors.empty()) lane->bell = new_bell(bell_tag(*lane), client.user, reply);
  return reply;
}

Lane& Service::lane_of(Client& client, const Json& request) {
  Queue* queue = exchange_.find_queue(request.at("subscription").get<std::uint64_t>());
  const std::uint64_t page = request.at("ack_page").get<std::uint64_t>();
  Lane* found = nullptr;
  if (queue != nullptr) {
    queue->each_lane([&](Lane& lane) {
      if (lane.has_member() && lane.client == client.id && lane.ack_incarnation == page) found = &lane;
    });
  }
  if (found == nullptr) {
    throw Error(ErrorCode::not_found, "subscription", "the exchange does not know this member", "subscribe again");
  }
  return *found;
}

Reply Service::unsubscribe(Client& client, const Json& request) {
  Lane& lane = lane_of(client, request);
  tell_member(client, *lane.queue, "member.left", "left");
  exchange_.detach_member(lane);
  return {};
}

Reply Service::settle(Client& client, const Json& request) {
  exchange_.sweep(*lane_of(client, request).queue, shm::Environment::now_ns());
  return {};
}

Reply Service::subscription(Client& client, const std::string& op, const Json& request) {
  const std::string name = request.at("name").get<std::string>();
  Reply reply;
  if (op == "subscription_create" || op == "subscription_update") {
    const SubscriptionOptions options =
        control::options_from_json(name, request.at("patterns").get<std::vector<std::string>>(), request.at("options"));
    control::check_subscription_name(name);
    const std::vector<std::string> given = request.value("given", std::vector<std::string>{});
    check_define(client, options, given);
    if (op == "subscription_create") {
      exchange_.create_subscription(options, false);
    } else {
      exchange_.update_subscription(options, given);
    }
    return reply;
  }
  if (op != "subscription_get") check_operate(client, name);
  Queue* queue = exchange_.find_queue(name);
  if (queue == nullptr) throw no_subscription(name);
  if (op == "subscription_get") {
    reply.body = {
        {"name", name}, {"patterns", queue->options.patterns}, {"options", control::options_to_json(queue->options)}};
  } else if (op == "subscription_remove") {
    remove(*queue, request.value("pending", ""), reply);
  } else if (op == "subscription_pause") {
    exchange_.pause(*queue);
  } else if (op == "subscription_resume") {
    exchange_.resume(*queue);
  } else if (op == "subscription_breaker") {
    order_breakers(*queue, order_named(request.at("order").get<std::string>()));
  } else if (op == "subscription_purge") {
    reply.body["purged"] = exchange_.purge(*queue, shm::Environment::now_ns());
  } else {
    throw Error(ErrorCode::protocol, "request '" + op.substr(0, 64) + "'", "there is no such operation");
  }
  return reply;
}

// What is pending does not go unless the caller has said what becomes of it (F38).
void Service::remove(Queue& queue, const std::string& pending, Reply& reply) {
  const std::string object = "subscription '" + queue.options.name + "'";
  if (queue.has_member()) {
    throw Error(ErrorCode::busy, object, "it has a live member", "stop that one first");
  }
  const std::uint64_t waiting = Exchange::pending(queue);
  const std::uint64_t dead = queue.block.dead_events;
  reply.body["pending"] = waiting;
  reply.body["dead_letters"] = dead;
  if (queue.role != Role::ordinary) {  // what it keeps is waiting for nobody
    exchange_.remove_subscription(queue);
    return;
  }
  if ((pending == "keep" || pending == "dead-letter") && waiting + dead != 0) {
    exchange_.end_subscription(queue, pending == "dead-letter");
    return;
  }
  if (pending.empty() && waiting + dead != 0) {
    throw Error(ErrorCode::not_empty, object,
                "it holds " + std::to_string(waiting) + " events and " + std::to_string(dead) + " dead letters",
                "say what becomes of them: keep (it ends when they are gone), dead-letter or drop");
  }
  if (!pending.empty() && pending != "keep" && pending != "dead-letter" && pending != "drop") {
    throw Error(ErrorCode::invalid_argument, object, "'" + pending + "' is no choice for what is pending",
                "give keep, dead-letter or drop");
  }
  exchange_.remove_subscription(queue);
}

Reply Service::stat() {
  const std::uint64_t now_ns = shm::Environment::now_ns();
  for (const auto& queue : exchange_.queues()) {
    if (queue && queue->active) exchange_.sweep(*queue, now_ns);
  }
  return document_reply("stat", stat_document(exchange_, bus_).dump());
}

Reply document_reply(const std::string& what, std::string_view content) {
  Reply reply;
  shm::UniqueFd file(::memfd_create("ackring-answer", MFD_CLOEXEC));
  std::size_t written = 0;
  while (file && written < content.size()) {
    const ssize_t result = ::write(file.get(), content.data() + written, content.size() - written);
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) break;
    written += static_cast<std::size_t>(result);
  }
  if (!file || written != content.size()) {
    throw Error(ErrorCode::no_space, what, "the exchange has no room for the answer", "try again", errno);
  }
  reply.descriptors.push_back(std::move(file));
  return reply;
}

}  // namespace ackring::exchange
