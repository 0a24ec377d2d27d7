#include "lib/client/topic_numbers.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "ackring/limits.hpp"

namespace ackring::client {

TopicNumbers::Place TopicNumbers::insert(std::string_view topic, std::uint32_t number) {
  static_assert(limits::topic_bytes <= std::numeric_limits<unsigned char>::max());
  static_assert(limits::topics * (text_offset + limits::topic_bytes) < nowhere);
  constexpr std::size_t first_slots = 64;
  if (2 * (size_ + 1) > slots_.size()) {
    std::vector<Slot> larger(slots_.empty() ? first_slots : 2 * slots_.size());
    for (const Slot& slot : slots_) {
      if (slot.place != nowhere) larger[free_slot(larger, slot.hash)] = slot;
    }
    slots_ = std::move(larger);
  }
  const auto place = static_cast<Place>(entries_.size());
  const std::size_t needed = entries_.size() + text_offset + topic.size();
  if (needed > entries_.capacity()) entries_.reserve(std::max(needed, 2 * entries_.capacity()));
  entries_.resize(needed);
  set_number(place, number);
  entries_[place + text_offset - 1] = static_cast<char>(topic.size());
  topic.copy(&entries_[place + text_offset], topic.size());
  const std::uint32_t hash = hash_of(topic);
  slots_[free_slot(slots_, hash)] = {hash, place};
  ++size_;
  return found(place);
}

std::size_t TopicNumbers::free_slot(const std::vector<Slot>& slots, std::uint32_t hash) noexcept {
  const std::size_t mask = slots.size() - 1;
  std::size_t at = hash & mask;
  while (slots[at].place != nowhere) at = (at + 1) & mask;
  return at;
}

}  // namespace ackring::client
