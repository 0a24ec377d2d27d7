// Consumer group: members share one subscription, and each event goes to one of them. What a member had not acked when
// it went comes to another one. (Members are threads here; they may as well be processes.)
//
//   build/release/examples/group
//
// Prints:
//   1000 events handled, each by one member
//   both members had work: yes
//   taken by a member that went: 'the last one' comes to another one, attempt 2
#include <array>
#include <iostream>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

int main() {
  auto bus = ackring::Bus::open("group");
  const ackring::SubscriptionOptions workers{
      .name = "workers", .patterns = {"jobs.#"}, .group = true, .max_in_flight = 16};
  std::array members{bus.subscribe(workers), bus.subscribe(workers)};

  std::array<std::set<std::string>, 2> handled;
  const auto work = [&](std::size_t i) {
    while (auto delivery = members[i].take(500ms)) {
      handled[i].emplace(delivery->text());
      (void)delivery->ack();
    }
  };
  std::thread first(work, 0);
  std::thread second(work, 1);
  auto publisher = bus.publisher();
  for (int i = 0; i < 1000; ++i) {
    if (publisher.publish_wait("jobs.resize", ackring::as_bytes(std::to_string(i)), 5s) != ackring::Outcome::ok)
      return 1;
  }
  first.join();
  second.join();
  std::set<std::string> all = handled[0];
  all.insert(handled[1].begin(), handled[1].end());
  const bool once = handled[0].size() + handled[1].size() == all.size();
  std::cout << all.size() << " events handled" << (once ? ", each by one member\n" : ", some twice\n");
  std::cout << "both members had work: " << (handled[0].empty() || handled[1].empty() ? "no\n" : "yes\n");

  // Now one of them goes with an event that it has taken; the other one went before, so that it does not take it first.
  { const ackring::Subscriber gone = std::move(members[1]); }
  std::optional<ackring::Delivery> taken;
  {
    ackring::Subscriber leaving = std::move(members[0]);
    if (publisher.publish("jobs.resize", "the last one") != ackring::Outcome::ok) return 1;
    taken = leaving.take(5s);
    if (!taken) return 1;
  }  // it leaves without a verdict
  auto staying = bus.subscribe(workers);
  auto again = staying.take(5s);
  if (!again) return 1;
  std::cout << "taken by a member that went: '" << again->text() << "' comes to another one, attempt "
            << again->attempt() << "\n";
  (void)again->ack();
}
