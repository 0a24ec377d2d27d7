// Log: what becomes of the exchange's notices: lines of text or JSON, on stderr or in a file. A queue and a thread of its own
// are between whoever tells something and what it is written to, so that the exchange never waits for a disk or a reader.
//
// Thread rules: any thread, but for the destructor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>

#include "lib/exchange/notice.hpp"
#include "tools/exchange/log_sink.hpp"

namespace ackring::tools {

enum class LogFormat : std::uint8_t { text, json };

struct LogSettings {
  spdlog::level::level_enum level = spdlog::level::info;
  LogFormat format = LogFormat::text;
  std::string file = {};  // empty: stderr

  bool operator==(const LogSettings&) const = default;
};

/// Both throw std::invalid_argument, which says what there is to choose from.
[[nodiscard]] spdlog::level::level_enum parse_log_level(const std::string& text);
[[nodiscard]] LogFormat parse_log_format(const std::string& text);

/// One line without its end. `journal`: for the systemd journal, which stamps the time itself and wants the priority in front.
/// Control characters become blanks, and a line is at most 4,000 bytes.
[[nodiscard]] std::string format_notice(const exchange::Notice& notice, LogFormat format, bool journal,
                                        std::uint64_t unix_ns);

class Log {
 public:
  /// Throws Failure (status_refused) if it can't open the file.
  explicit Log(const LogSettings& settings);
  /// Writes what has been told so far, or drops it where that takes long.
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// Of each kind of event, no more than lines_per_quiet in ten seconds; then a line says how many more there were.
  void tell(const exchange::Notice& notice);
  /// Other settings from now on; the file is opened anew, whether its name is another one or not. Throws Failure: everything is
  /// as it was.
  void change(const LogSettings& settings);

  static constexpr std::uint32_t lines_per_quiet = 200;
  static constexpr std::uint64_t quiet_ns = 10'000'000'000;

 private:
  struct Kind {
    std::uint64_t until_ns = 0;
    std::uint32_t lines = 0;
    std::uint64_t left_out = 0;
  };

  void write(const exchange::Notice& notice);
  void tell_left_out(std::uint64_t now_ns, bool all);
  [[nodiscard]] std::string lost_line(std::uint64_t lines);

  std::mutex mutex_;
  LogFormat format_ = LogFormat::text;
  bool journal_ = false;
  std::map<std::string_view, Kind> kinds_;  // by the name of the event
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<LogSink> sink_;
  std::shared_ptr<spdlog::async_logger> logger_;
};

}  // namespace ackring::tools
