// The side of the client in looking into a subscription (lib/exchange/inspect_requests.cpp): asks until there is no more.
#include <algorithm>

#include "ackring/bus.hpp"
#include "lib/client/answer.hpp"
#include "lib/client/connection.hpp"
#include "lib/client/event_text.hpp"
#include "lib/client/reply_error.hpp"
#include "lib/control/subscription_codec.hpp"

namespace ackring {

using client::Json;
using client::reply_field;

namespace {

constexpr std::uint64_t most_events = 4096;  // of one request
constexpr int most_searches = 5;

}  // namespace

std::string Bus::peek_ndjson(std::string_view name, std::uint64_t n) {
  control::check_subscription_name(name);
  std::string lines;
  Json request = {{"op", "peek"}, {"name", name}};
  for (bool more = true; more && n != 0;) {
    request["at_most"] = std::min(n, most_events);
    client::Reply reply = connection_->request(request);
    const std::string records = client::read_answer(reply);
    const std::shared_ptr<const client::BusView> view = connection_->view();
    client::each_record(records, [&](const ring::EventParts& event) {
      if (n == 0) return;
      --n;
      lines += client::event_line(client::text_of(event, view->topics, view->segment()));
    });
    more = reply_field<bool>(reply.body, "more");
    if (more) request["next"] = reply_field<Json>(reply.body, "next");
  }
  return lines;
}

std::string Bus::explain_json(std::string_view name, const EventSelection& which) {
  control::check_subscription_name(name);
  const Json question = [&]() -> Json {
    if (which.delivery != 0) return {{"op", "explain"}, {"name", name}, {"delivery", which.delivery}};
    if (which.publisher.empty() || which.sequence == 0) {
      throw Error(ErrorCode::invalid_argument, "event", "neither a delivery nor an event is named",
                  "give a delivery number, or a publisher and a sequence");
    }
    return {{"op", "explain"}, {"name", name}, {"publisher", which.publisher}, {"sequence", which.sequence}};
  }();
  for (int search = 1;; ++search) {
    Json request = question;
    client::Reply reply = connection_->request(request);
    const auto moves = reply_field<std::uint64_t>(reply.body, "moves");
    while (reply_field<bool>(reply.body, "more")) {
      request["next"] = reply_field<Json>(reply.body, "next");
      reply.no_fork.unlock();  // nothing came with it
      reply = connection_->request(request);
    }
    const bool found = !reply.descriptors.empty();
    // It may have moved from where one look had yet to come to where another had been.
    if (!found && reply_field<std::uint64_t>(reply.body, "moves") != moves && search < most_searches) continue;
    Json facts = reply_field<Json>(reply.body, "facts");
    const std::shared_ptr<const client::BusView> view = connection_->view();
    std::string document;
    if (found) {
      const std::string records = client::read_answer(reply);
      client::each_record(records, [&](const ring::EventParts& event) {
        document = client::explain_document(name, facts, &event, view->topics, view->segment());
      });
    } else {
      if (which.delivery != 0) facts["delivery"] = which.delivery;
      if (which.delivery == 0) facts["event"] = {{"publisher", which.publisher}, {"sequence", which.sequence}};
      document = client::explain_document(name, facts, nullptr, view->topics, view->segment());
    }
    return document;
  }
}

}  // namespace ackring
