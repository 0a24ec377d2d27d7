#include "lib/control/topic_table.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "ackring/error.hpp"
#include "ackring/limits.hpp"
#include "lib/control/topic_pattern.hpp"

namespace ackring::control {
namespace {

using shm::TopicsSegment;
using shm::TopicText;

constexpr const char* segment_name = "topics";
constexpr std::uint64_t entry_alignment = 8;
constexpr std::uint64_t arena_limit = topics_reserve_bytes - shm::page_bytes;
constexpr std::uint64_t first_step_bytes = 256u << 10;
constexpr std::uint64_t last_step_bytes = 4u << 20;

constexpr std::uint64_t entry_bytes(std::size_t text_bytes) noexcept {
  return (sizeof(TopicText) + text_bytes + entry_alignment - 1) / entry_alignment * entry_alignment;
}
static_assert(arena_limit >= limits::topics * entry_bytes(limits::topic_bytes));

// By how much an arena grows that holds so much and is full.
constexpr std::uint64_t step_bytes(std::uint64_t held) noexcept {
  return std::clamp(held, first_step_bytes, last_step_bytes);
}

const std::byte* arena(const shm::Segment& segment) noexcept { return segment.data() + shm::page_bytes; }

// Text of the entry at `offset` of an arena of which `used` bytes are filled; empty if none begins there. What looks
// like an entry inside another one gives itself away: letters make a length over the limit, and a last letter with the
// padding behind it a text that begins with zero.
std::string_view text_at(const shm::Segment& segment, std::uint64_t offset, std::uint64_t used) noexcept {
  if (used > arena_limit || offset >= used || used - offset < entry_alignment) return {};
  std::uint16_t bytes = 0;
  std::memcpy(&bytes, arena(segment) + offset, sizeof bytes);
  if (bytes == 0 || bytes > limits::topic_bytes || entry_bytes(bytes) > used - offset) return {};
  const auto* text = reinterpret_cast<const char*>(arena(segment) + offset + sizeof(TopicText));
  return text[0] == 0 ? std::string_view{} : std::string_view{text, bytes};
}

std::string_view text_of(const shm::Segment& segment, std::uint32_t number) noexcept {
  if (number == 0 || !segment.valid()) return {};
  // acquire(topics.arena): the text of every entry below it
  const std::uint64_t used = segment.as<TopicsSegment>()->arena_bytes.load(std::memory_order_acquire);
  return text_at(segment, (std::uint64_t{number} - 1) * entry_alignment, used);
}

}  // namespace

std::uint64_t topics_file_bytes(std::uint64_t topics, std::size_t topic_bytes) noexcept {
  const std::uint64_t used = std::min(topics * entry_bytes(topic_bytes), arena_limit);
  std::uint64_t held = first_step_bytes;
  while (held < used) held = std::min(held + step_bytes(held), arena_limit);
  return shm::page_bytes + held;
}

TopicTable::TopicTable(shm::Directory& directory, std::uint64_t generation) {
  if (directory.exists(segment_name)) {
    segment_ = shm::Segment::attach(directory, segment_name, shm::SegmentKind::topics, shm::Access::read_write,
                                    topics_reserve_bytes);
    adopt();
  } else {
    segment_ = shm::Segment::create(directory, segment_name, shm::SegmentKind::topics,
                                    shm::page_bytes + first_step_bytes, generation, 0, {}, topics_reserve_bytes);
  }
}

void TopicTable::adopt() {
  const auto damaged = [&](const std::string& why) {
    return Error(ErrorCode::damaged, segment_.name(), why, "keep a copy of the bus directory and remove the bus");
  };
  auto* topics = segment_.as<TopicsSegment>();
  if (segment_.bytes() < shm::page_bytes) throw damaged("the topic table is shorter than its header");
  // relaxed: only X writes it, and this is X; what an X before it wrote is read after its death
  const std::uint64_t used = topics->arena_bytes.load(std::memory_order_relaxed);
  if (used > segment_.bytes() - shm::page_bytes || used % entry_alignment != 0) {
    throw damaged("the topic table has " + std::to_string(segment_.bytes()) + " bytes and says that " +
                  std::to_string(used) + " are filled");
  }
  for (std::uint64_t offset = 0; offset < used;) {
    const std::string_view text = text_at(segment_, offset, used);
    if (!valid_topic(text)) throw damaged("there is no topic at " + std::to_string(offset) + " of the topic table");
    numbers_.emplace(text, static_cast<std::uint32_t>(offset / entry_alignment + 1));
    offset += entry_bytes(text.size());
  }
  // relaxed: only X writes it; readers take it as a gauge
  if (topics->count.load(std::memory_order_relaxed) != numbers_.size()) {
    topics->count.store(numbers_.size(),
                        std::memory_order_relaxed);  // relaxed: only X writes it, readers take it as a gauge
  }
}

bool TopicTable::make_room(std::uint64_t arena_bytes) {
  const std::uint64_t held = segment_.bytes() - shm::page_bytes;
  if (arena_bytes <= held) return true;
  if (arena_bytes > arena_limit) return false;
  std::uint64_t step = step_bytes(held);
  for (;;) {
    try {
      segment_.grow(shm::page_bytes + std::min(held + step, arena_limit));
      return true;
    } catch (const Error&) {
      // A nearly full file system may still have room for a small step.
      if (step == first_step_bytes) return false;
      step = first_step_bytes;
    }
  }
}

std::uint32_t TopicTable::intern(std::string_view topic) {
  const auto known = numbers_.find(topic);
  if (known != numbers_.end()) return known->second;
  if (topic.empty() || topic.size() > limits::topic_bytes || numbers_.size() >= limits::topics) return 0;

  auto* topics = segment_.as<TopicsSegment>();
  const std::uint64_t offset = topics->arena_bytes.load(std::memory_order_relaxed);  // relaxed: only X writes it
  const std::uint64_t bytes = entry_bytes(topic.size());
  if (!make_room(offset + bytes)) return 0;

  std::array<char, entry_bytes(limits::topic_bytes)> entry{};
  const auto text_bytes = static_cast<std::uint16_t>(topic.size());
  std::memcpy(entry.data(), &text_bytes, sizeof text_bytes);
  std::memcpy(entry.data() + sizeof(TopicText), topic.data(), topic.size());
  std::byte* place = segment_.data() + shm::page_bytes + offset;
  shm::shared_copy(place, entry.data(), bytes);

  const auto number = static_cast<std::uint32_t>(offset / entry_alignment + 1);
  numbers_.emplace(std::string_view(reinterpret_cast<const char*>(place) + sizeof(TopicText), topic.size()), number);
  // release(topics.arena): the text of the new entry
  topics->arena_bytes.store(offset + bytes, std::memory_order_release);
  topics->count.store(numbers_.size(),
                      std::memory_order_relaxed);  // relaxed: only X writes it, readers take it as a gauge
  return number;
}

std::string_view TopicTable::text(std::uint32_t number) const noexcept { return text_of(segment_, number); }

std::uint64_t TopicTable::count() const noexcept { return numbers_.size(); }

std::string_view TopicReader::text(std::uint32_t number) const noexcept { return text_of(segment_, number); }

std::uint64_t TopicReader::count() const noexcept {
  if (!segment_.valid()) return 0;
  return segment_.as<TopicsSegment>()->count.load(std::memory_order_relaxed);  // relaxed: a gauge
}

}  // namespace ackring::control
