// A recording of either format, event by event.
//
// Thread rules: one thread.
#pragma once

#include <cstdint>
#include <string>

#include "tools/shmtool/recording_file.hpp"

namespace ackring::tools {

class RecordingReader {
 public:
  /// `path`: "-" is stdin. What is in it is told from its first bytes. Throws Failure (status_usage) if it can't be opened.
  explicit RecordingReader(std::string path);

  /// The next event; false at the end, and when a signal asks to stop. Throws Failure: status_usage where a line is no
  /// event, status_not_so where a recording was cut short or is damaged, and gives every event before that first.
  bool next(RecordedEvent& recorded);
  /// "FILE:LINE" or "FILE: event N" of what next() gave last, for messages.
  [[nodiscard]] std::string where() const;
  /// What was published before it was there already when the recording began; 0: not known.
  [[nodiscard]] std::uint64_t started_unix_ns() const noexcept { return compact_.started_unix_ns(); }
  /// At the end: events that the recorder says are missing from it.
  [[nodiscard]] std::uint64_t missed() const noexcept { return compact_.missed(); }

 private:
  bool next_line(RecordedEvent& recorded);
  bool next_record(RecordedEvent& recorded);

  ByteInput input_;
  enum class Format { unknown, ndjson, compact } format_ = Format::unknown;
  CompactReader compact_;
  std::string line_;
  std::uint64_t line_number_ = 0;
};

}  // namespace ackring::tools
