// Hello: one publisher, one subscription, one event. Bus::open() runs the exchange on a thread of this program if the
// bus has none.
//
//   build/release/examples/hello       ($ACKRING_DIR says where buses are; `shmtool ls --bus hello` shows this one)
//
// Prints:
//   orders.eu.created: {"id":1} (attempt 1)
//   acked: ok
#include <cstdio>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

int main() {
  auto bus = ackring::Bus::open("hello");
  auto subscriber = bus.subscribe({.name = "billing", .patterns = {"orders.#"}});
  auto publisher = bus.publisher({.name = "gateway"});

  if (publisher.publish("orders.eu.created", R"({"id":1})") != ackring::Outcome::ok) return 1;

  auto delivery = subscriber.take(5s);
  if (!delivery) return 1;
  std::printf("%.*s: %.*s (attempt %u)\n", static_cast<int>(delivery->topic().size()), delivery->topic().data(),
              static_cast<int>(delivery->text().size()), delivery->text().data(), delivery->attempt());
  std::printf("acked: %s\n", ackring::to_string(delivery->ack()));
}
