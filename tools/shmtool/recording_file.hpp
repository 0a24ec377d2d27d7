// What `shmtool record` writes and `shmtool replay` reads: lines of JSON, or the compact format that docs/record-replay.md
// describes. Both keep topic, key, headers and payload byte for byte, and when an event was published.
//
// Thread rules: plain functions and objects; one thread each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/shmtool/pub_input.hpp"

namespace ackring::tools {

struct RecordedEvent {
  Event event;
  std::string publisher;
  std::uint64_t sequence = 0;
  std::uint64_t delivery = 0;
  std::uint32_t attempt = 1;
  std::uint64_t published_unix_ns = 0;  ///< 0: not known
};

/// The line that `shmtool sub` prints of the event, with more members only where that line alone would not bring back each
/// byte: `data_base64` behind a `data` that is a JSON string itself or has white space around it, `key_base64` and
/// `headers_base64` (pairs of name and value) where they are no UTF-8.
[[nodiscard]] std::string recorded_line(const RecordedEvent& recorded);

/// Takes what recorded_line() adds to a line out of it again: an OtherMember of parse_event(). Throws
/// std::invalid_argument.
void parse_exact_member(const std::string& name, std::string_view value, Event& event);

/// The event that a line describes: one of recorded_line(), or of `shmtool sub`, `dlq export` or `pub --ndjson`; without
/// publisher and numbers. Throws std::invalid_argument that says what is wrong.
void parse_recorded_line(std::string_view line, RecordedEvent& recorded);

/// First bytes of a compact recording; no text begins with them, and transfers as text destroy them.
inline constexpr std::string_view compact_magic =
    "\x89"
    "ackrec\n";
inline constexpr std::uint32_t compact_version = 1;

/// Writes the compact format, piece by piece, to the end of a string.
class CompactWriter {
 public:
  /// The header of the file. `started_unix_ns`: what was published before it was kept on the bus for newcomers.
  static void begin(std::uint64_t started_unix_ns, std::string& out);
  void add(const RecordedEvent& recorded, std::string& out);
  /// The record that tells a whole file from one that was cut short. `missed`: events that the recording does not have.
  void end(std::uint64_t missed, std::string& out) const;
  [[nodiscard]] std::uint64_t events() const noexcept { return events_; }

 private:
  std::uint32_t name_number(const std::string& name, std::string& out);

  std::unordered_map<std::string, std::uint32_t> names_;
  std::string body_;
  std::uint64_t events_ = 0;
};

/// Reads it, from whatever part of the file is at hand.
class CompactReader {
 public:
  enum class Step {
    event,    ///< `recorded` is the next one
    end,      ///< the file was closed by its recorder; asked again, it tells `damaged` if bytes follow
    more,     ///< needed() bytes from here on are asked for; where the file has no more, it was cut short
    damaged,  ///< why() says what is wrong
  };

  /// Goes on at `bytes`, which begins where the last call left off (behind used()).
  Step next(std::string_view bytes, RecordedEvent& recorded);
  /// How many bytes the last call is done with, all of the steps event, end and more.
  [[nodiscard]] std::size_t used() const noexcept { return used_; }
  /// After `more`: how many bytes behind used() the next call needs at least.
  [[nodiscard]] std::size_t needed() const noexcept { return needed_; }
  /// Where in the file it is.
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }
  [[nodiscard]] std::uint64_t events() const noexcept { return events_; }
  [[nodiscard]] std::uint64_t started_unix_ns() const noexcept { return started_unix_ns_; }
  /// After `end`.
  [[nodiscard]] std::uint64_t missed() const noexcept { return missed_; }

 private:
  Step take_header(std::string_view bytes);
  Step take_event(std::string_view body, RecordedEvent& recorded);
  Step take_end(std::string_view body);
  Step damaged(std::string why);

  std::vector<std::string> names_;
  std::size_t used_ = 0;
  std::size_t needed_ = 0;
  std::uint64_t offset_ = 0;
  std::string why_;
  std::uint64_t events_ = 0;
  std::uint64_t started_unix_ns_ = 0;
  std::uint64_t missed_ = 0;
  bool begun_ = false;
  bool ended_ = false;
};

}  // namespace ackring::tools
