#include "ackring/event_bus.hpp"

#include "lib/runtime/runner.hpp"

namespace ackring {

EventBus::EventBus(Bus bus, EventBusOptions options)
    : runner_(std::make_unique<runtime::Runner>(std::move(bus), options)) {}
EventBus::~EventBus() = default;

void EventBus::on(std::string_view pattern, Handler handler, HandlerOptions options) {
  runner_->add(pattern, std::move(handler), std::move(options));
}
void EventBus::run() { runner_->run(); }
void EventBus::start() { runner_->start(); }
void EventBus::join() { runner_->join(); }
bool EventBus::run_one(Nanoseconds timeout) { return runner_->run_one(timeout); }
void EventBus::stop() noexcept { runner_->stop(); }
std::vector<HandlerStatus> EventBus::status() const { return runner_->status(); }

}  // namespace ackring
