// Worker: calls the handler with the deliveries of a batch, one after the other.
#include <algorithm>
#include <utility>

#include "lib/runtime/task.hpp"

namespace ackring::runtime {

void Task::work(Lane& lane) {
  {
    BatchQueue::consumer_token_t filled(lane.filled);
    BatchQueue::producer_token_t idle(lane.idle);
    std::shared_ptr<client::Member> member;
    while (true) {
      Batch* batch = nullptr;
      lane.filled.wait_dequeue(filled, batch);
      if (batch == nullptr) break;
      run(*batch, member);
      lane.idle.enqueue(idle, batch);
    }
  }
  const std::lock_guard lock(mutex_);
  ++ended_;
  ended_changed_.notify_all();
}

void Task::run(Batch& batch, std::shared_ptr<client::Member>& member) {
  (void)busy_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a number for people
  if (batch.probe || !breaker_.is_open()) call_each(batch, member);
  give_back_rest(batch);
  {
    const std::lock_guard lock(batch.mutex);
    batch.active = false;
    batch.copies.clear();
  }
  (void)busy_.fetch_add(~std::uint32_t{0}, std::memory_order_relaxed);  // relaxed: a number for people
}

// Until none is left, the breaker opens, or no more shall be begun.
void Task::call_each(Batch& batch, std::shared_ptr<client::Member>& member) {
  const std::uint64_t begin_ns = shm::Environment::now_ns();
  std::uint64_t calls = 0;
  std::uint64_t returned = 0;
  std::uint64_t succeeded = 0;
  Delivery delivery;
  while (discarding_.load(std::memory_order_relaxed) == 0) {  // relaxed: finish() waits for what is begun
    const std::size_t at = batch.claim();
    if (at >= batch.count) break;
    if (!batch.copies.empty()) delivery = std::move(batch.copies[at]);
    ++calls;
    if (caller_.call(delivery, member, batch.views[at], batch.probe, succeeded)) {
      ++returned;
    } else if (breaker_.is_open()) {
      break;
    }
  }
  const std::uint64_t end_ns = shm::Environment::now_ns();
  if (succeeded != 0) breaker_.succeeded(succeeded, batch.probe, end_ns);
  (void)handled_.fetch_add(returned, std::memory_order_relaxed);  // relaxed: a number for people
  if (calls == 0) return;
  const std::uint64_t call_ns = std::max<std::uint64_t>((end_ns - begin_ns) / calls, 1);
  // relaxed: an estimate, which one of several workers makes
  const std::uint64_t before = call_ns_.load(std::memory_order_relaxed);
  call_ns_.store(before == 0 ? call_ns : (3 * before + call_ns) / 4, std::memory_order_relaxed);  // relaxed: as above
}

void Task::give_back_rest(Batch& batch) {
  std::size_t at = batch.claim_rest();
  if (batch.probe) breaker_.dropped(batch.count - at);
  for (; at < batch.count; ++at) caller_.give_back(batch.views[at]);
}

bool Task::run_one() {
  if (batches_.empty()) batches_.push_back(std::make_unique<Batch>());
  return work_inline(1) != 0;
}

std::size_t Task::work_inline(std::size_t most) {
  if (!member_->readable()) return 0;
  Batch& batch = *batches_.front();
  const Permit permit = breaker_.permit(shm::Environment::now_ns());
  most = std::min({most, permit.deliveries, most_of_a_batch});
  if (most == 0) return 0;
  const std::size_t count = subscriber_.take_batch({batch.views.data(), most});
  if (count == 0) return 0;
  if (permit.probe) breaker_.began(count);
  fill(batch, {batch.views.data(), count}, permit.probe);
  run(batch, own_member_);
  return count;
}

}  // namespace ackring::runtime
