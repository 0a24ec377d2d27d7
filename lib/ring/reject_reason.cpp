#include "lib/ring/reject_reason.hpp"

#include <array>
#include <cstring>

#include "lib/shm/utf8.hpp"

namespace ackring::ring {
namespace {

using Text = std::array<std::uint64_t, 15>;
static_assert(sizeof(Text) == shm::reject_reason_bytes + 1);

// As much of the text as fits, and no half character.
std::string_view fitting(std::string_view text) noexcept {
  if (text.size() <= shm::reject_reason_bytes) return text;
  std::size_t end = shm::reject_reason_bytes;
  const auto inside = [text](std::size_t at) { return (static_cast<std::uint8_t>(text[at]) & 0xc0) == 0x80; };
  while (end > shm::reject_reason_bytes - 3 && inside(end)) --end;
  return text.substr(0, inside(end) ? shm::reject_reason_bytes : end);  // still inside: it is no UTF-8
}

// Can a slot's word stand for the entry?
bool nameable(std::uint64_t name) noexcept { return name != 0 && name != shm::reject_reason_busy; }

}  // namespace

std::uint32_t write_reason(shm::AckPage& page, shm::RejectReason* reasons, std::uint64_t entry, std::string_view text) {
  const std::uint64_t name = entry + 1;
  if (text.empty() || !nameable(name)) return 0;
  text = fitting(text);
  Text words{};
  std::memcpy(words.data(), text.data(), text.size());
  for (std::size_t tries = 0; tries < shm::reject_reasons; ++tries) {
    // relaxed: it only spreads the threads over the slots
    const std::uint64_t index = page.reasons.fetch_add(1, std::memory_order_relaxed) % shm::reject_reasons;
    shm::RejectReason& slot = reasons[index];
    const std::uint64_t old = slot.entry.load(std::memory_order_relaxed);  // relaxed: the exchange compares it again
    if (old == shm::reject_reason_busy ||
        // acquire(ack.reason): another thread's text in this slot is written before ours
        !slot.entry.compare_exchange(old, shm::reject_reason_busy, std::memory_order_acquire)) {
      continue;
    }
    // release(ack.reason_reuse): whoever sees a word of the new text sees the claim, and throws its copy away.
    shm::Memory::fence(std::memory_order_release);
    for (std::size_t i = 0; i < words.size(); ++i) {
      slot.text[i].store(words[i], std::memory_order_relaxed);  // relaxed: published by `entry`
    }
    slot.entry.store(name, std::memory_order_release);  // release(ack.reason): the text
    return static_cast<std::uint32_t>(index) + 1;
  }
  return 0;
}

std::string read_reason(const shm::RejectReason* reasons, std::uint64_t entry, std::uint32_t delay_field) {
  const std::uint64_t name = entry + 1;
  if (delay_field == 0 || delay_field > shm::reject_reasons || !nameable(name)) return {};
  const shm::RejectReason& slot = reasons[delay_field - 1];
  if (slot.entry.load(std::memory_order_acquire) != name) return {};  // acquire(ack.reason): the text
  Text words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = slot.text[i].load(std::memory_order_relaxed);  // relaxed: between the two looks at `entry`
  }
  // acquire(ack.reason_reuse): orders the copy before the second look; a torn copy is thrown away.
  shm::Memory::fence(std::memory_order_acquire);
  if (slot.entry.load(std::memory_order_relaxed) != name) return {};  // relaxed: ordered by the fence above
  std::array<char, sizeof(Text)> text;
  std::memcpy(text.data(), words.data(), sizeof words);
  const std::string_view all(text.data(), shm::reject_reason_bytes);
  // Zeros behind the text are padding; one within it is a control character like any other.
  return shm::printable(all.substr(0, all.find_last_not_of('\0') + 1));
}

std::vector<std::string> read_last_reasons(const shm::AckPage& page, const shm::RejectReason* reasons,
                                           std::size_t most) {
  std::vector<std::string> texts;
  const std::uint64_t begun = page.reasons.load(std::memory_order_relaxed);  // relaxed: a place to begin at
  for (std::uint64_t back = 1; back <= shm::reject_reasons && back <= begun && texts.size() < most; ++back) {
    const std::uint64_t index = (begun - back) % shm::reject_reasons;
    const std::uint64_t name =
        reasons[index].entry.load(std::memory_order_relaxed);  // relaxed: read_reason() looks again
    std::string text = read_reason(reasons, name - 1, static_cast<std::uint32_t>(index) + 1);
    if (!text.empty()) texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace ackring::ring
