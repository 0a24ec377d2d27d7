// LogSink: where lines of the log go. It waits for nobody for long: a line for which stderr or the file system has no room
// is dropped and counted, and the next one that gets through comes behind a line that says how many were lost.
//
// Thread rules: log() on the thread of spdlog's pool; the rest on any.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include <spdlog/sinks/sink.h>

#include "lib/shm/descriptor.hpp"

namespace ackring::tools {

class LogSink final : public spdlog::sinks::sink {
 public:
  /// `lost_line` makes the line that says how many were lost; `overrun` says how many the queue before the sink has lost
  /// since the start.
  LogSink(std::function<std::string(std::uint64_t)> lost_line, std::function<std::uint64_t()> overrun);

  /// From now on lines go to this file, at its end, or to stderr if it is empty. The same path again opens what has that name
  /// by now. Throws Failure (status_refused): lines go where they went before.
  void open(const std::string& path);

  void log(const spdlog::details::log_msg& message) override;
  void flush() override {}
  void set_pattern(const std::string& /*pattern*/) override {}  // lines come as they are to be written
  void set_formatter(std::unique_ptr<spdlog::formatter> /*formatter*/) override {}  // as above

 private:
  bool write_line(std::string_view line);

  const std::function<std::string(std::uint64_t)> lost_line_;
  const std::function<std::uint64_t()> overrun_;
  std::mutex mutex_;
  shm::UniqueFd file_;  // none: stderr
  bool stalled_ = false;
  std::uint64_t dropped_ = 0;
  std::uint64_t told_overrun_ = 0;
};

}  // namespace ackring::tools
