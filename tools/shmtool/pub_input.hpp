// What `shmtool pub` publishes: one event from the command line, lines, or objects, one per line.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ackring/delivery.hpp"

namespace ackring::tools {

struct Event {
  std::string topic;
  std::string payload;
  std::string key;
  Headers headers;
};

/// The event that a line of `--ndjson` describes; what it does not say is taken from `defaults`. Throws
/// std::invalid_argument that says what is wrong.
void parse_event(std::string_view line, const Event& defaults, Event& event);

/// Reads a file or stdin line by line, in constant memory; several times if asked to (stdin is remembered then).
class LineReader {
 public:
  /// `path`: "-" is stdin. Throws Failure (status_usage) if it can't be opened.
  LineReader(std::string path, std::uint64_t passes);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line without its line break; false at the end of the last pass, and when a signal asks to stop. The last
  /// line needs no line break. Throws Failure (status_refused) on a read error.
  bool next(std::string& line);
  /// "FILE:LINE" of the line that next() gave last, for messages.
  [[nodiscard]] std::string where() const;

 private:
  bool next_of_file(std::string& line);
  void fill();

  std::string path_;
  int fd_ = -1;
  bool remember_ = false;
  std::uint64_t passes_left_;
  std::uint64_t line_number_ = 0;
  bool ended_ = false;
  std::string buffer_;
  std::size_t at_ = 0;
  std::vector<std::string> remembered_;
  bool replaying_ = false;
};

}  // namespace ackring::tools
