// Doctor: the table of topics, and that every number that is used names one.
#include <vector>

#include "ackring/limits.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/exchange/doctor_look.hpp"

#include <unordered_set>

namespace ackring::exchange {

namespace {

const char* const name = "topics";
constexpr std::uint64_t entry_alignment = 8;

}  // namespace

void check_topics(Look& look) {
  if (!look.has(name)) {
    if (!look.topics_used.empty() || look.live) look.violation(name, "missing", "the table of topics is not there");
    return;
  }
  BusFile file = look.open(name);
  if (!file.valid() || !look.check_header(file, shm::SegmentKind::topics, 0, shm::page_bytes, true)) return;
  std::array<std::uint64_t, 2> words{};  // arena_bytes, count
  if (!file.read_as(offsetof(shm::TopicsSegment, arena_bytes), words)) return;
  file = look.open(name);  // it may have grown before it said so
  const auto [used, count] = words;
  if (!file.valid()) return;
  if (used > file.bytes() - shm::page_bytes || used % entry_alignment != 0) {
    look.violation(name, "arena_bytes",
                   "of " + std::to_string(file.bytes()) + " bytes, " + std::to_string(used) + " are said to be filled");
    return;
  }
  std::unordered_set<std::uint32_t> numbers;
  std::unordered_set<std::string> texts;
  for (std::uint64_t at = 0; at < used;) {
    const std::byte* entry = file.look(shm::page_bytes + at, entry_alignment);
    std::uint16_t bytes = 0;
    if (entry != nullptr) std::memcpy(&bytes, entry, sizeof bytes);
    const std::uint64_t whole = (sizeof bytes + bytes + entry_alignment - 1) / entry_alignment * entry_alignment;
    if (bytes <= limits::topic_bytes && at + whole <= used) entry = file.look(shm::page_bytes + at, whole);
    const bool possible = entry != nullptr && bytes != 0 && bytes <= limits::topic_bytes && at + whole <= used;
    std::string text;
    if (possible) text.assign(reinterpret_cast<const char*>(entry) + sizeof bytes, bytes);
    if (!possible || !control::valid_topic(text)) {
      look.violation(name, "topic", "there is no topic at " + std::to_string(at) + " of the table");
      return;
    }
    if (!texts.insert(text).second) look.violation(name, "topic_twice", "topic " + text + " is in it twice");
    numbers.insert(static_cast<std::uint32_t>(at / entry_alignment + 1));
    at += whole;
  }
  // The count is stored last: a crash may leave it behind by one.
  const bool behind = !look.stopped && count + 1 == numbers.size();
  if (count != numbers.size() && (look.live || !behind)) {
    look.violation(name, "count",
                   "it holds " + std::to_string(numbers.size()) + " topics and says " + std::to_string(count));
  }
  for (const auto& [number, user] : look.topics_used) {
    if (numbers.contains(number)) continue;
    look.violation(user, "topic_number", "it uses topic " + std::to_string(number) + ", which the table does not have");
  }
}

}  // namespace ackring::exchange
