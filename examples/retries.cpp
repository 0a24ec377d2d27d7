// Retries and dead letters: what is nacked comes again after a back-off; what fails too often, or is rejected, is kept
// with its reason, for people, who send it back when its cause is mended.
//
//   build/release/examples/retries     (`shmtool dlq show payments --bus retries` shows what is not requeued)
//
// Prints:
//   card-1, attempt 1: nacked
//   card-1, attempt 2: nacked
//   card-1, attempt 3: nacked
//   card-2, attempt 1: rejected
//   dead letter: card-1, max_deliveries: the bank is closed, 3 attempts
//   dead letter: card-2, rejected: no such card, 1 attempts
//   requeued: 2
//   card-1, attempt 4: acked
//   card-2, attempt 2: acked
#include <iostream>
#include <sstream>
#include <string>

#include <nlohmann/json.hpp>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

namespace {

void take_one(ackring::Subscriber& subscriber, const char* what, ackring::Outcome (*decide)(ackring::Delivery&)) {
  auto delivery = subscriber.take(5s);
  if (!delivery) throw std::runtime_error("nothing came");
  std::cout << delivery->text() << ", attempt " << delivery->attempt() << ": " << what << "\n";
  if (decide(*delivery) != ackring::Outcome::ok) throw std::runtime_error("the verdict came too late");
}

}  // namespace

int main() {
  auto bus = ackring::Bus::open("retries");
  auto subscriber = bus.subscribe({.name = "payments",
                                   .patterns = {"payments.#"},
                                   .max_deliveries = 3,
                                   .backoff_initial = 10ms,
                                   .backoff_multiplier = 2});
  auto publisher = bus.publisher();

  if (publisher.publish("payments.card", "card-1") != ackring::Outcome::ok) return 1;
  for (int i = 0; i < 3; ++i) {
    take_one(subscriber, "nacked", [](ackring::Delivery& delivery) { return delivery.nack("the bank is closed"); });
  }
  if (publisher.publish("payments.card", "card-2") != ackring::Outcome::ok) return 1;
  take_one(subscriber, "rejected", [](ackring::Delivery& delivery) { return delivery.reject("no such card"); });
  if (subscriber.flush(5s) != ackring::Outcome::ok) return 1;  // the exchange has seen all verdicts

  ackring::DeadLetterCursor cursor;
  while (cursor.more) {
    std::istringstream lines(bus.dead_letters_ndjson("payments", cursor));
    for (std::string line; std::getline(lines, line);) {
      const auto letter = nlohmann::json::parse(line);
      std::cout << "dead letter: " << letter.at("data").get<std::string>() << ", "
                << letter.at("reason").get<std::string>() << ", " << letter.at("attempts").size() << " attempts\n";
    }
  }
  std::cout << "requeued: " << bus.requeue_dead_letters("payments") << "\n";
  for (int i = 0; i < 2; ++i) {
    take_one(subscriber, "acked", [](ackring::Delivery& delivery) { return delivery.ack(); });
  }
}
