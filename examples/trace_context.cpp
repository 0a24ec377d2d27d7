// Trace context: the header `traceparent` (W3C) says which request an event belongs to, and stays with it through
// retries, dead letters and restarts. Who publishes while it handles an event goes on with its trace.
//
//   build/release/examples/trace_context     (`shmtool explain SUB EVENT` shows the header)
//
// Prints:
//   orders.created, attempt 1: of the request's trace: yes
//   orders.created, attempt 2: of the request's trace: yes
//   invoices.created, attempt 1: of the request's trace: yes; in a span of its own: yes
#include <iostream>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

namespace {

const char* yes(bool holds) { return holds ? "yes" : "no"; }

ackring::Delivery take_one(ackring::Subscriber& subscriber) {
  auto delivery = subscriber.take(5s);
  if (!delivery) throw std::runtime_error("nothing came");
  std::cout << delivery->topic() << ", attempt " << delivery->attempt() << ": ";
  return std::move(*delivery);
}

}  // namespace

int main() {
  auto bus = ackring::Bus::open("trace_context");
  auto orders = bus.subscribe({.patterns = {"orders.#"}, .backoff_initial = 10ms});
  auto invoices = bus.subscribe({.patterns = {"invoices.#"}});
  auto publisher = bus.publisher();

  const auto request = ackring::TraceContext::start();  // or TraceContext::parse() of the one that came by HTTP
  ackring::Headers headers{{"content-type", "application/json"}};
  set_traceparent(headers, request);
  if (publisher.publish("orders.created", "{}", {.headers = &headers}) != ackring::Outcome::ok) return 1;

  for (const bool fails : {true, false}) {
    ackring::Delivery order = take_one(orders);
    const auto trace = traceparent_of(order);
    std::cout << "of the request's trace: " << yes(trace && trace->trace_id == request.trace_id) << "\n";
    if (fails || !trace) {
      (void)order.nack();
      continue;
    }
    set_traceparent(headers, trace->child());
    if (publisher.publish("invoices.created", "{}", {.headers = &headers}) == ackring::Outcome::ok) (void)order.ack();
  }
  ackring::Delivery invoice = take_one(invoices);
  const auto trace = traceparent_of(invoice);
  std::cout << "of the request's trace: " << yes(trace && trace->trace_id == request.trace_id)
            << "; in a span of its own: " << yes(trace && trace->span_id != request.span_id) << "\n";
  (void)invoice.ack();
}
