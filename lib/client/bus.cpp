#include "ackring/bus.hpp"

#include <utility>

#include "lib/client/answer.hpp"
#include "lib/client/connection.hpp"
#include "lib/client/dead_letter_text.hpp"
#include "lib/client/member.hpp"
#include "lib/client/publisher_endpoint.hpp"
#include "lib/control/subscription_codec.hpp"

namespace ackring {
namespace {

using client::Json;

Json definition(const char* op, const SubscriptionOptions& options) {
  control::check_options(options);
  control::check_subscription_name(options.name);
  return {{"op", op},
          {"name", options.name},
          {"patterns", options.patterns},
          {"options", control::options_to_json(options)},
          {"given", control::given_options(options)}};
}

Json dead_letter_request(const char* op, std::string_view name, const DeadLetterSelection& which,
                         const DeadLetterCursor& cursor, std::uint64_t at_most) {
  control::check_subscription_name(name);
  Json request = {{"op", op}, {"name", name}, {"at_most", at_most}};
  if (which.delivery != 0) request["delivery"] = which.delivery;
  if (which.sequence != 0) {
    request["publisher"] = which.publisher;
    request["sequence"] = which.sequence;
  }
  if (!which.reason.empty()) request["reason"] = which.reason;
  if (cursor.until != 0) {
    request["from"] = cursor.from;
    request["until"] = cursor.until;
  }
  return request;
}

std::uint64_t advance(DeadLetterCursor& cursor, const Json& reply) {
  cursor.more = client::reply_field<bool>(reply, "more");
  if (cursor.more) {
    cursor.from = client::reply_field<std::uint64_t>(reply, "next");
    cursor.until = client::reply_field<std::uint64_t>(reply, "until");
  }
  return client::reply_field<std::uint64_t>(reply, "done");
}

constexpr std::uint64_t most_dead_letters = 4096;  // of one request

}  // namespace

Bus::Bus(std::shared_ptr<client::Connection> connection) noexcept : connection_(std::move(connection)) {}

Bus Bus::open(std::string_view name, BusOptions options) {
  return Bus(client::Connection::open(name, std::move(options)));
}

Bus Bus::in_memory() { return Bus(client::Connection::in_memory()); }

Publisher Bus::publisher(PublisherOptions options) {
  connection_->check_usable();
  std::shared_ptr<client::PublisherEndpoint> endpoint(new client::PublisherEndpoint(connection_, options.wait),
                                                      client::UnlessForked{});
  endpoint->open(options);
  return Publisher(std::move(endpoint));
}

Subscriber Bus::subscribe(SubscriptionOptions options) {
  connection_->check_usable();
  std::shared_ptr<client::Member> member(new client::Member(connection_, options.wait), client::UnlessForked{});
  member->join(options);
  return Subscriber(std::move(member));
}

void Bus::create_subscription(const SubscriptionOptions& options) {
  (void)connection_->request(definition("subscription_create", options));
}

void Bus::update_subscription(const SubscriptionOptions& options) {
  Json request = definition("subscription_update", options);
  // Every option counts, so that one can go back to its default.
  request["given"] = Json::array();
  for (const auto& [option, value] : request["options"].items()) request["given"].push_back(option);
  (void)connection_->request(std::move(request));
}

SubscriptionOptions Bus::subscription(std::string_view name) {
  control::check_subscription_name(name);
  const client::Reply reply = connection_->request({{"op", "subscription_get"}, {"name", name}});
  return control::options_from_json(client::reply_field<std::string>(reply.body, "name"),
                                    client::reply_field<std::vector<std::string>>(reply.body, "patterns"),
                                    client::reply_field<Json>(reply.body, "options"));
}

void Bus::remove_subscription(std::string_view name, Pending pending) {
  control::check_subscription_name(name);
  Json request{{"op", "subscription_remove"}, {"name", name}};
  if (pending != Pending::refuse) request["pending"] = control::to_string(pending);
  (void)connection_->request(std::move(request));
}

void Bus::pause_subscription(std::string_view name) {
  control::check_subscription_name(name);
  (void)connection_->request({{"op", "subscription_pause"}, {"name", name}});
}

void Bus::resume_subscription(std::string_view name) {
  control::check_subscription_name(name);
  (void)connection_->request({{"op", "subscription_resume"}, {"name", name}});
}

void Bus::order_breaker(std::string_view name, BreakerOrder order) {
  control::check_subscription_name(name);
  const char* text = order == BreakerOrder::open ? "open" : order == BreakerOrder::closed ? "closed" : "auto";
  (void)connection_->request({{"op", "subscription_breaker"}, {"name", name}, {"order", text}});
}

std::uint64_t Bus::purge_subscription(std::string_view name) {
  control::check_subscription_name(name);
  return client::reply_field<std::uint64_t>(connection_->request({{"op", "subscription_purge"}, {"name", name}}).body,
                                            "purged");
}

std::uint64_t Bus::requeue_dead_letters(std::string_view name, const DeadLetterSelection& which,
                                        DeadLetterCursor& cursor, std::uint64_t at_most) {
  return advance(cursor, connection_->request(dead_letter_request("dead_requeue", name, which, cursor, at_most)).body);
}

std::uint64_t Bus::requeue_dead_letters(std::string_view name, const DeadLetterSelection& which) {
  std::uint64_t done = 0;
  for (DeadLetterCursor cursor; cursor.more;) done += requeue_dead_letters(name, which, cursor, most_dead_letters);
  return done;
}

std::uint64_t Bus::purge_dead_letters(std::string_view name, const DeadLetterSelection& which) {
  std::uint64_t done = 0;
  for (DeadLetterCursor cursor; cursor.more;) {
    const Json request = dead_letter_request("dead_purge", name, which, cursor, most_dead_letters);
    done += advance(cursor, connection_->request(request).body);
  }
  return done;
}

std::string Bus::dead_letters_ndjson(std::string_view name, DeadLetterCursor& cursor, std::uint64_t at_most) {
  client::Reply reply = connection_->request(dead_letter_request("dead_letters", name, {}, cursor, at_most));
  const std::string records = client::read_answer(reply);
  const std::shared_ptr<const client::BusView> view = connection_->view();
  std::string lines;
  client::each_record(records, [&](const ring::EventParts& event) {
    lines += client::dead_letter_line(event, view->topics, view->segment());
  });
  static_cast<void>(advance(cursor, reply.body));
  return lines;
}

std::string Bus::stat_json() {
  client::Reply reply = connection_->request({{"op", "stat"}});
  return client::read_answer(reply);
}

const std::string& Bus::name() const noexcept { return connection_->name(); }
bool Bus::connected() const noexcept { return connection_->connected(); }

}  // namespace ackring
