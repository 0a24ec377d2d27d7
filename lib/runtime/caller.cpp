#include "lib/runtime/caller.hpp"

#include <exception>
#include <utility>

namespace ackring::runtime {

namespace {

constexpr std::size_t probed_events = 1024;  // whose probes are counted; beyond, the oldest begins anew

void add(shm::Word64& word) {
  (void)word.fetch_add(1, std::memory_order_relaxed);  // relaxed: a number for people
}

}  // namespace

Caller::Caller(Handler handler, const HandlerOptions& options, std::shared_ptr<client::Member> member,
               CircuitBreaker& breaker)
    : handler_(std::move(handler)),
      on_failure_(options.on_failure),
      free_probes_(options.breaker.free_probes),
      member_(std::move(member)),
      breaker_(breaker) {}

// `delivery` is empty, but for a copy of an at-most-once one, and is again afterwards; `member` is the worker's reference,
// which goes into it and, in the usual case, comes out of it again.
bool Caller::call(Delivery& delivery, std::shared_ptr<client::Member>& member, const DeliveryView& view, bool probe,
                  std::uint64_t& succeeded) {
  if (!delivery.pending()) {
    if (!member) member = member_;
    client::Access::bind(delivery, std::move(member), view);
  }
  bool returned = false;
  try {
    handler_(delivery);
    returned = true;
  } catch (const Reject& error) {
    reject(delivery, error.what());
  } catch (const std::exception& error) {
    fail(delivery, error.what(), probe, succeeded);
  } catch (...) {
    fail(delivery, "an exception that is no std::exception", probe, succeeded);
  }
  member = client::Access::unbind(delivery);
  if (!returned) return false;
  if (member) (void)member->ack(view.entry, view.record);
  ++succeeded;
  if (!probe) return true;
  const std::lock_guard lock(mutex_);
  probed_.clear();  // it is well again
  return true;
}

void Caller::give_back(const DeliveryView& view) {
  add(given_back_);
  (void)member_->give_back(view.entry, Nanoseconds{0});
}

bool Caller::has_free_probe(std::uint64_t delivery) {
  const std::lock_guard lock(mutex_);
  if (probed_.size() >= probed_events && !probed_.contains(delivery)) probed_.erase(probed_.begin());
  return ++probed_[delivery] <= free_probes_;
}

void Caller::fail(Delivery& delivery, std::string_view what, bool probe, std::uint64_t& succeeded) {
  add(failed_);
  std::uint64_t delay_ns = 0;
  const std::uint64_t now_ns = shm::Environment::now_ns();
  if (succeeded != 0) breaker_.succeeded(std::exchange(succeeded, 0), probe, now_ns);
  const bool counts = breaker_.failed(probe, now_ns, delay_ns);
  if (!delivery.pending()) return;  // the handler has given a verdict, or somebody else has the delivery
  if (on_failure_) on_failure_(delivery, what);
  if (!counts && has_free_probe(delivery.delivery())) {
    add(given_back_);
    (void)delivery.give_back(Nanoseconds(delay_ns));
  } else {
    (void)delivery.nack(what);
  }
}

void Caller::reject(Delivery& delivery, std::string_view what) {
  add(rejected_);
  if (delivery.pending()) (void)delivery.reject(what);
}

}  // namespace ackring::runtime
