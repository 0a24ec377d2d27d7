// A unit test of code that uses a bus: Bus::in_memory() is a private one, with its exchange on a thread: no files, no
// daemon, and gone at the end.
//
//   build/release/examples/unit_test
//
// Prints:
//   ok: an order becomes an invoice
//   ok: an order that is no number is rejected
#include <iostream>
#include <string>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

namespace {

// What is to be tested: handles one order.
bool invoice_one(ackring::Subscriber& orders, ackring::Publisher& invoices) {
  auto order = orders.take(1s);
  if (!order) return false;
  const std::string text(order->text());
  if (text.find_first_not_of("0123456789") != std::string::npos) {
    return order->reject("no number") == ackring::Outcome::ok;
  }
  return invoices.publish("invoices.created", text) == ackring::Outcome::ok && order->ack() == ackring::Outcome::ok;
}

int failures = 0;
void check(bool holds, const char* what) {
  std::cout << (holds ? "ok: " : "FAILED: ") << what << "\n";
  if (!holds) ++failures;
}

}  // namespace

int main() {
  auto bus = ackring::Bus::in_memory();
  auto orders = bus.subscribe({.name = "invoicing", .patterns = {"orders.#"}});
  auto invoices = bus.subscribe({.patterns = {"invoices.#"}});
  auto publisher = bus.publisher();

  (void)publisher.publish("orders.created", "17");
  check(invoice_one(orders, publisher) && invoices.take(1s)->text() == "17", "an order becomes an invoice");

  (void)publisher.publish("orders.created", "seventeen");
  const bool handled = invoice_one(orders, publisher) && orders.flush(1s) == ackring::Outcome::ok;
  ackring::DeadLetterCursor cursor;
  const std::string letters = bus.dead_letters_ndjson("invoicing", cursor);
  check(handled && letters.find("rejected: no number") != std::string::npos, "an order that is no number is rejected");
  return failures == 0 ? 0 : 1;
}
