// Ordered by key: a group shares the work, and the events of one account are still handled in their order, one at a
// time, by one member, even though one of them fails at first.
//
//   build/release/examples/ordered_by_key
//
// Prints:
//   account-0: 0 1 2 3 4
//   account-1: 0 1 2 3 4
//   account-2: 0 1 2 3 4
//   account-3: 0 1 2 3 4
//   failed once: account-1 2
#include <array>
#include <iostream>
#include <map>
#include <string>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

int main() {
  auto bus = ackring::Bus::open("ordered_by_key");
  const ackring::SubscriptionOptions ledger{.name = "ledger",
                                            .patterns = {"accounts.#"},
                                            .backoff_initial = 20ms,
                                            .group = true,
                                            .ordered = true,
                                            .ordered_by_key = true};
  std::array members{bus.subscribe(ledger), bus.subscribe(ledger)};
  auto publisher = bus.publisher();
  for (int i = 0; i < 20; ++i) {
    const std::string key = "account-" + std::to_string(i % 4);
    if (publisher.publish("accounts.booked", std::to_string(i / 4), {.key = key}) != ackring::Outcome::ok) return 1;
  }

  std::map<std::string, std::string, std::less<>> handled;
  std::string failed;
  for (int count = 0; count < 20;) {
    for (auto& member : members) {
      auto delivery = member.take(5ms);
      if (!delivery) continue;
      if (delivery->key() == "account-1" && delivery->text() == "2" && !delivery->redelivered()) {
        failed = std::string(delivery->key()) + " 2";
        (void)delivery->nack();  // 3 and 4 of this account wait for it; other accounts go on
        continue;
      }
      handled[std::string(delivery->key())] += " " + std::string(delivery->text());
      (void)delivery->ack();
      ++count;
    }
  }
  for (const auto& [key, numbers] : handled) std::cout << key << ":" << numbers << "\n";
  std::cout << "failed once: " << failed << "\n";
}
