// TopicNumbers: topic text → the publisher's own number of it, for a publisher that may use a million topics.
//
// Linear probing (Knuth, TAOCP 3, 6.4, algorithm L) over slots of eight bytes, in an array that is at most half full. Numbers
// and texts lie one behind the other in an arena, in the order in which they came. A topic that is in no cache costs two
// lines, its slot and its text, where a node-based map takes four: bucket, node, and a text of its own. Who goes through many
// topics does so in the same order again and again more often than not: the text behind the last one that was found is
// looked at first, and costs no line that the processor does not see coming.
//
// Thread rules: one thread at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace ackring::client {

/// memcmp() for texts of the same length, up to 255 bytes, without a call: topics are a few words long.
inline bool equal_texts(const char* left, const char* right, std::size_t bytes) noexcept {
  const auto load8 = [](const char* from) {
    std::uint64_t value;
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  if (bytes < 8) [[unlikely]]
    return std::memcmp(left, right, bytes) == 0;
  for (std::size_t at = 0; at + 8 < bytes; at += 8) {
    if (load8(left + at) != load8(right + at)) return false;
  }
  return load8(left + bytes - 8) == load8(right + bytes - 8);
}

class TopicNumbers {
 public:
  /// Where a topic is: for good.
  using Place = std::uint32_t;
  static constexpr Place nowhere = ~Place{0};

  /// `nowhere`: it is not known.
  [[nodiscard]] Place find(std::string_view topic) noexcept {
    // In another order a look at the next one would only mislead the processor.
    if (in_order_ && next_ < entries_.size() && is(next_, topic)) return found(next_);
    if (slots_.empty()) return nowhere;
    const std::uint32_t hash = hash_of(topic);
    for (std::size_t at = hash & mask();; at = (at + 1) & mask()) {
      const Slot& slot = slots_[at];
      if (slot.place == nowhere) return nowhere;
      if (slot.hash != hash || !is(slot.place, topic)) continue;
      in_order_ = slot.place == next_;
      return found(slot.place);
    }
  }
  /// Is this the topic at `place`?
  [[nodiscard]] bool is(Place place, std::string_view topic) const noexcept {
    return text_bytes(place) == topic.size() && equal_texts(&entries_[place + text_offset], topic.data(), topic.size());
  }
  /// A topic that is not known, of 1 to 255 bytes. Throws std::bad_alloc: nothing has changed.
  Place insert(std::string_view topic, std::uint32_t number);

  [[nodiscard]] std::uint32_t number(Place place) const noexcept {
    std::uint32_t number;
    std::memcpy(&number, &entries_[place], sizeof number);
    return number;
  }
  void set_number(Place place, std::uint32_t number) noexcept { std::memcpy(&entries_[place], &number, sizeof number); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Eight letters at a time, the last eight may overlap those before; both halves of each product, as in wyhash (Wang Yi):
  /// the lower one alone knows nothing of the last letters.
  [[nodiscard]] static std::uint32_t hash_of(std::string_view topic) noexcept {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;
    std::uint64_t hash = topic.size() * golden;
    const auto add = [&hash](const char* letters, std::size_t bytes) {
      std::uint64_t word = 0;
      std::memcpy(&word, letters, bytes);
      __extension__ using Product = unsigned __int128;
      const Product product = Product{hash ^ word} * golden;
      hash = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    if (topic.size() < 8) [[unlikely]] {
      add(topic.data(), topic.size());
    } else {
      for (std::size_t at = 0; at + 8 < topic.size(); at += 8) add(topic.data() + at, 8);
      add(topic.data() + topic.size() - 8, 8);
    }
    return static_cast<std::uint32_t>(hash);
  }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    Place place = nowhere;
  };
  // An entry of the arena: the number, the length of the text in a byte, the text.
  static constexpr std::size_t text_offset = sizeof(std::uint32_t) + 1;

  [[nodiscard]] static std::size_t free_slot(const std::vector<Slot>& slots, std::uint32_t hash) noexcept;
  [[nodiscard]] std::size_t text_bytes(Place place) const noexcept {
    return static_cast<unsigned char>(entries_[place + text_offset - 1]);
  }
  Place found(Place place) noexcept {
    next_ = place + static_cast<Place>(text_offset + text_bytes(place));
    return place;
  }
  [[nodiscard]] std::size_t mask() const noexcept { return slots_.size() - 1; }

  std::vector<Slot> slots_;    // a power of two
  std::vector<char> entries_;  // the arena
  std::size_t size_ = 0;
  Place next_ = 0;        // behind the entry that was found last
  bool in_order_ = true;  // the last one was the next one of the one before
};

}  // namespace ackring::client
