// Reasons of rejects and nacks: a few slots behind the ack words, since a reason does not fit into a word. The delay field of the
// word names the slot, plus 1; 0: no reason.
//
// Thread rules: write_reason from any thread of the member; read_reason on X's thread.
// Invariants: 1. A slot that names an entry holds that entry's text, all of it. 2. A slot is claimed before its text
// changes, so that neither X nor a second thread takes half of one text for another. A reason is a courtesy: a reject
// whose slot 64 later ones have used again is still a reject.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/shm/format.hpp"

namespace ackring::ring {

/// Where the reasons begin in the file of an ack page with `slots` words.
constexpr std::size_t reasons_offset(std::uint64_t slots) noexcept {
  const std::size_t words = slots * sizeof(shm::Word64);
  return shm::page_bytes + (words + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
}

/// The member's side: puts `text` (cut at 119 bytes, between two characters) into a slot; returns the delay field of
/// the word `reject`. 0, no reason: the text is empty, every slot is being written, or `entry` is one of the last two
/// below 2^64, which the slots can't name.
[[nodiscard]] std::uint32_t write_reason(shm::AckPage& page, shm::RejectReason* reasons, std::uint64_t entry,
                                         std::string_view text);

/// X's side: the reason of `entry`, printable whatever the member wrote; empty if there is none, or none any more.
[[nodiscard]] std::string read_reason(const shm::RejectReason* reasons, std::uint64_t entry, std::uint32_t delay_field);

/// X's side, and tools': texts in the slots whatever they were given for, the latest first, printable; at most `most`.
[[nodiscard]] std::vector<std::string> read_last_reasons(const shm::AckPage& page, const shm::RejectReason* reasons,
                                                         std::size_t most);

}  // namespace ackring::ring
