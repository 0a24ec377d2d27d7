// Distrust: what becomes of a client that writes into its own files what no client writes, or cuts them short. It loses
// its place by that, and its connection; nobody else loses anything. Rings: quarantine() in route.cpp.
#include "lib/exchange/exchange.hpp"
#include "lib/shm/bus_error_guard.hpp"

namespace ackring::exchange {

// Each tick, where settle() looks only at what it needs. What a page says is compared with itself: it was read once, and
// what X has taken over from it stays as it is (F25, F26, F28).
void Exchange::check_ack_page(Lane& lane) {
  if (!lane.has_member() || lane.distrusted) return;
  const ring::AckMarks now = lane.acks.marks();
  const char* why = lane.ack_segment.cut_short() ? cut_short : ring::impossible(lane.seen, now, lane.entries);
  if (why == nullptr) {
    lane.seen = now;
  } else {
    distrust(lane, why);
  }
}

// The member counts as dead, having taken all that is in its ring: it may have taken any of it. The next tick detaches it.
void Exchange::distrust(Lane& lane, const char* why) {
  if (lane.distrusted) return;
  Queue& queue = *lane.queue;
  if (lane.ack_segment.cut_short()) why = cut_short;  // whatever it was found by
  lane.distrusted = lane.leaving = true;
  lane.taken = lane.entries;
  // relaxed: X is the only writer
  const std::uint64_t count = queue.state->invalid_acks.load(std::memory_order_relaxed);
  queue.state->invalid_acks.store(count + 1, std::memory_order_relaxed);  // relaxed: for people
  // relaxed: X's own word; a successor distrusts the page of a member without a client
  lane.ring_page->client.store(0, std::memory_order_relaxed);
  const std::string what = "the ack page of a member of subscription " + queue.options.name;
  note({Notice::Level::warning,
        "member.distrusted",
        what + ": it counts as dead, what it held is delivered again: " + why,
        {{"subscription", queue.options.name}, {"client", lane.client}, {"why", std::string(why)}}});
  offences_.push_back({lane.client, what + " is damaged: " + why + "; the member lost its place"});
  activate(queue);
}

// A read behind the end of some file was answered with zeros. Not every such read is followed by one of the checks.
void Exchange::look_for_cut_files() {
  bus_errors_ = shm::bus_errors();
  for (const auto& ingress : publishers_) {
    if (ingress && ingress->ring_page != nullptr && !ingress->quarantined && ingress->ring_segment.cut_short()) {
      quarantine(*ingress, cut_short);
    }
  }
  for (const auto& queue : queues_) {
    if (!queue || queue->shard != shard_) continue;
    queue->each_lane([this](Lane& lane) {
      if (lane.has_member() && lane.ack_segment.cut_short()) distrust(lane, cut_short);
    });
  }
}

}  // namespace ackring::exchange
