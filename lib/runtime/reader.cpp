// Reader: takes for workers that are free, and hands them batches.
#include <poll.h>

#include <algorithm>
#include <functional>
#include <string_view>

#include "lib/runtime/task.hpp"

namespace ackring::runtime {

namespace {

constexpr std::uint64_t batch_ns = 1'000'000;  // of calls: what a delivery waits at most behind others of its batch
constexpr std::uint64_t longest_wait = 1'000'000'000;  // without a look at everything
constexpr auto short_wait = std::chrono::milliseconds(1);
constexpr std::int64_t idle_wait_us = 100'000;

}  // namespace

void Task::read() {
  while (!stopping() && !closed()) {
    const bool any = by_key_ ? read_by_key() : read_for_any(*lanes_.front());
    if (!any && closed()) break;
  }
}

// How many deliveries a worker should get at once.
std::size_t Task::batch_size() const noexcept {
  const std::uint64_t call_ns = call_ns_.load(std::memory_order_relaxed);  // relaxed: an estimate
  if (call_ns == 0) return 1;
  return static_cast<std::size_t>(std::clamp<std::uint64_t>(batch_ns / call_ns, 1, most_of_a_batch));
}

// An idle batch for a worker that is free, or will be within a moment. nullptr: there is none for now.
Batch* Task::free_batch(Lane& lane) {
  while (true) {
    // A second batch waits for its worker: only where that is not long.
    const std::size_t out = lane.batches - lane.stash.size();
    const std::size_t most = batch_size() > 1 ? lane.batches : lane.workers;
    Batch* batch = nullptr;
    if (out < most && !lane.stash.empty()) {
      batch = lane.stash.back();
      lane.stash.pop_back();
      return batch;
    }
    if (stopping() || !lane.idle.wait_dequeue_timed(lane.consumer, batch, idle_wait_us)) return nullptr;
    if (batch == nullptr) return nullptr;  // it is to stop
    lane.stash.push_back(batch);
  }
}

bool Task::read_for_any(Lane& lane) {
  Batch* batch = free_batch(lane);
  if (batch == nullptr) return true;
  bool probe = false;
  const std::size_t count = take({batch->views.data(), batch_size()}, probe);
  if (count == 0) {
    lane.stash.push_back(batch);
    return false;
  }
  fill(*batch, {batch->views.data(), count}, probe);
  lane.filled.enqueue(lane.producer, batch);
  return true;
}

// Events of a key go to the same worker. Where it has no room for one, it and those behind it are given back: they come
// again, in their order.
bool Task::read_by_key() {
  std::array<DeliveryView, most_of_a_batch> views;
  for (const auto& lane : lanes_) {
    Batch* batch = free_batch(*lane);
    if (batch == nullptr) return true;
    lane->stash.push_back(batch);
  }
  bool probe = false;
  const std::size_t count = take({views.data(), batch_size()}, probe);
  std::vector<std::vector<DeliveryView>> parts(lanes_.size());
  for (std::size_t i = 0; i < count; ++i) parts[lane_of(views[i])].push_back(views[i]);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    Lane& lane = *lanes_[i];
    Batch* batch = lane.stash.back();
    lane.stash.pop_back();
    std::copy(parts[i].begin(), parts[i].end(), batch->views.begin());
    fill(*batch, parts[i], probe);
    lane.filled.enqueue(lane.producer, batch);
  }
  return count != 0;
}

std::size_t Task::lane_of(const DeliveryView& view) {
  const std::string_view key = view.key();
  if (key.empty()) return next_lane_++ % lanes_.size();
  return std::hash<std::string_view>{}(key) % lanes_.size();
}

// Takes what the breaker allows; waits for it, or for the breaker, a while. 0: look at everything again.
std::size_t Task::take(std::span<DeliveryView> views, bool& probe) {
  const std::uint64_t now_ns = shm::Environment::now_ns();
  const Permit permit = breaker_.permit(now_ns);
  if (permit.deliveries == 0) {
    pollfd stop{stop_fd_, POLLIN, 0};
    const std::uint64_t wait_ns = permit.again_ns > now_ns ? permit.again_ns - now_ns : 0;
    (void)::poll(&stop, 1, static_cast<int>(wait_ns / 1'000'000) + 1);
    return 0;
  }
  probe = permit.probe;
  const std::size_t most = std::min(views.size(), permit.deliveries);
  std::size_t count = subscriber_.take_batch(views.first(most), short_wait);
  if (count == 0 && !closed() && options_.subscription.wait != Wait::spin) {
    std::array<pollfd, 2> news{pollfd{fd(), POLLIN, 0}, pollfd{stop_fd_, POLLIN, 0}};
    (void)::poll(news.data(), news.size(), static_cast<int>(longest_wait / 1'000'000));
    count = (news[1].revents & POLLIN) != 0 ? 0 : subscriber_.take_batch(views.first(most));
  }
  if (probe && count != 0) breaker_.began(count);
  return count;
}

void Task::fill(Batch& batch, std::span<const DeliveryView> views, bool probe) {
  const std::lock_guard lock(batch.mutex);
  batch.count = views.size();
  batch.probe = probe;
  batch.claimed.store(0, std::memory_order_relaxed);  // relaxed: the queue hands it over
  batch.seen = Batch::unseen;
  batch.overdue = false;
  batch.taken_ns = batch.extended_ns = shm::Environment::now_ns();
  batch.active = true;
  if (!at_most_once_ || workers_ == 0) return;
  batch.copies.clear();
  for (const DeliveryView& view : views) {
    Delivery& copy = batch.copies.emplace_back();
    client::Access::bind(copy, std::shared_ptr<client::Member>(member_), view);
    copy.detach();
  }
}

}  // namespace ackring::runtime
