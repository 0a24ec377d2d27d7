#include "tools/shmtool/recording_reader.hpp"

#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "tools/common/program.hpp"

namespace ackring::tools {

RecordingReader::RecordingReader(std::string path) : input_(std::move(path)) {}

std::string RecordingReader::where() const {
  return format_ == Format::compact ? fmt::format("{}: event {}", input_.name(), compact_.events())
                                    : fmt::format("{}:{}", input_.name(), line_number_);
}

bool RecordingReader::next(RecordedEvent& recorded) {
  if (format_ == Format::unknown) {
    // One byte tells: no line of JSON begins with the first one of a compact recording.
    if (input_.bytes().empty() && !input_.more()) return false;
    format_ = input_.bytes().front() == compact_magic.front() ? Format::compact : Format::ndjson;
  }
  return format_ == Format::compact ? next_record(recorded) : next_line(recorded);
}

bool RecordingReader::next_line(RecordedEvent& recorded) {
  bool whole = false;
  while (take_line(input_, line_, whole)) {
    ++line_number_;
    if (line_.find_first_not_of(" \t\r") == std::string::npos) continue;  // a blank line says nothing
    try {
      parse_recorded_line(line_, recorded);
    } catch (const std::invalid_argument& error) {
      if (whole) throw Failure(status_usage, where() + ": " + error.what());
      throw Failure(status_not_so, where() +
                                       ": cut short: the last line is not whole, nor ended by a line break: what "
                                       "is before it is published; the rest was never written");
    }
    return true;
  }
  return false;
}

bool RecordingReader::next_record(RecordedEvent& recorded) {
  for (;;) {
    const CompactReader::Step step = compact_.next(input_.bytes(), recorded);
    if (step == CompactReader::Step::damaged) {
      throw Failure(status_not_so,
                    fmt::format("{}: damaged at byte {}: {}: the {} events before it are published; take the file from "
                                "where it was recorded, or record again",
                                input_.name(), compact_.offset(), compact_.why(), compact_.events()));
    }
    input_.consume(compact_.used());
    if (step == CompactReader::Step::event) return true;
    if (step == CompactReader::Step::end) {
      if (input_.bytes().empty() && !input_.more()) return false;
      continue;  // bytes follow: damaged
    }
    while (input_.bytes().size() < compact_.needed()) {
      if (input_.more()) continue;
      if (!input_.ended()) return false;  // a signal
      throw Failure(status_not_so,
                    fmt::format("{}: cut short at byte {}: its recorder was killed, or the file is not whole: the {} "
                                "whole events in it are published; the rest is not there",
                                input_.name(), compact_.offset() + input_.bytes().size(), compact_.events()));
    }
  }
}

}  // namespace ackring::tools
