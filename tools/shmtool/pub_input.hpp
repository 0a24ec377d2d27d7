// What `shmtool pub` publishes: one event from the command line, lines, or objects, one per line.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
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

/// A member of a line's object that parse_event() does not know, in the order of the line: its name, and its value as it
/// stands there. May change the event, and throw std::invalid_argument.
using OtherMember = std::function<void(const std::string& name, std::string_view value)>;

/// The event that a line of `--ndjson` describes; what it does not say is taken from `defaults`. Throws
/// std::invalid_argument that says what is wrong.
void parse_event(std::string_view line, const Event& defaults, Event& event, const OtherMember& other = {});

/// The value of a member that must be a string, decoded; `member` is for the message. Throws std::invalid_argument.
[[nodiscard]] std::string string_member(std::string_view value, const char* member);
/// The bytes of a member that must be a string of base64. Throws std::invalid_argument.
[[nodiscard]] std::string base64_member(std::string_view value, const char* member);

/// The bytes of a file or of stdin, read as they are asked for, so that a signal ends a wait for them.
class ByteInput {
 public:
  /// `path`: "-" is stdin. Throws Failure (status_usage) if it can't be opened.
  explicit ByteInput(std::string path);
  ~ByteInput();
  ByteInput(const ByteInput&) = delete;
  ByteInput& operator=(const ByteInput&) = delete;

  /// What was read and not consumed.
  [[nodiscard]] std::string_view bytes() const noexcept { return std::string_view(buffer_).substr(at_); }
  void consume(std::size_t bytes) noexcept { at_ += bytes; }
  /// Reads more, behind what bytes() has. False: at the end, or a signal asks to stop. Throws Failure (status_refused) on
  /// a read error.
  bool more();
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  /// Is it a file that can be read again from its beginning?
  [[nodiscard]] bool can_rewind() const noexcept;
  void rewind() noexcept;
  /// The path, or "stdin".
  [[nodiscard]] std::string name() const { return path_ == "-" ? "stdin" : path_; }

 private:
  std::string path_;
  int fd_ = -1;
  bool ended_ = false;
  std::string buffer_;
  std::size_t at_ = 0;
};

/// Splits the first line off what `input` has, reading as much as it takes. The last one needs no line break; `whole`
/// says whether it has one. False: there is no more, or a signal asks to stop.
bool take_line(ByteInput& input, std::string& line, bool& whole);

/// Reads a file or stdin line by line, in constant memory; several times if asked to (stdin is remembered then).
class LineReader {
 public:
  /// `path`: "-" is stdin. Throws Failure (status_usage) if it can't be opened.
  LineReader(std::string path, std::uint64_t passes);

  /// The next line without its line break; false at the end of the last pass, and when a signal asks to stop. The last
  /// line needs no line break. Throws Failure (status_refused) on a read error.
  bool next(std::string& line);
  /// "FILE:LINE" of the line that next() gave last, for messages.
  [[nodiscard]] std::string where() const;

 private:
  ByteInput input_;
  bool remember_ = false;
  std::uint64_t passes_left_;
  std::uint64_t line_number_ = 0;
  std::vector<std::string> remembered_;
  bool replaying_ = false;
};

}  // namespace ackring::tools
