// Request and reply over two topics: the request says in a header where its reply should go, and a number that the
// reply repeats. The topic of replies is the client's own, so that nobody else's come in between.
//
//   build/release/examples/request_reply
//
// Prints:
//   1: 6 * 7 = 42
//   2: 9 * 9 = 81
//   no reply: 1 / 0 was rejected
#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

namespace {

std::string header(const ackring::Delivery& delivery, std::string_view name) {
  for (const auto& [known, value] : delivery.headers()) {
    if (known == name) return value;
  }
  return {};
}

void serve(ackring::Subscriber requests, ackring::Publisher replies) {
  for (int i = 0; i < 3; ++i) {
    auto request = requests.take(5s);
    if (!request) return;
    const std::string text(request->text());
    if (text[2] != '*') {
      (void)request->reject("I can only multiply");
      continue;
    }
    const ackring::Headers headers{{"correlation-id", header(*request, "correlation-id")}};
    const std::string answer = text + " = " + std::to_string((text[0] - '0') * (text[4] - '0'));
    // Acked only when the reply is out: after a crash in between, the request comes again.
    if (replies.publish(header(*request, "reply-to"), answer, {.headers = &headers}) == ackring::Outcome::ok) {
      (void)request->ack();
    }
  }
}

}  // namespace

int main() {
  auto bus = ackring::Bus::open("request_reply");
  std::thread server(serve, bus.subscribe({.patterns = {"sums.request"}}), bus.publisher());

  const std::string reply_topic = "sums.reply.client-1";
  auto replies = bus.subscribe({.patterns = {reply_topic}, .guarantee = ackring::at_most_once});
  auto requests = bus.publisher();
  int number = 0;
  for (const std::string sum : {"6 * 7", "9 * 9", "1 / 0"}) {
    const ackring::Headers headers{{"reply-to", reply_topic}, {"correlation-id", std::to_string(++number)}};
    if (requests.publish("sums.request", sum, {.headers = &headers}) != ackring::Outcome::ok) return 1;
  }
  for (int i = 0; i < 2; ++i) {
    auto reply = replies.take(5s);
    if (!reply) return 1;
    std::cout << header(*reply, "correlation-id") << ": " << reply->text() << "\n";
  }
  server.join();
  if (!replies.take(50ms)) std::cout << "no reply: 1 / 0 was rejected\n";
}
