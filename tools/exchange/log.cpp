#include "tools/exchange/log.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

using exchange::Notice;
using Json = nlohmann::ordered_json;

constexpr std::size_t queued_lines = 1024;
constexpr std::size_t most_line_bytes = 4000;  // fits a pipe that has room at all
constexpr std::size_t most_text_bytes = 2000;

spdlog::level::level_enum level_of(Notice::Level level) noexcept {
  switch (level) {
    case Notice::Level::debug:
      return spdlog::level::debug;
    case Notice::Level::info:
      return spdlog::level::info;
    case Notice::Level::warning:
      return spdlog::level::warn;
    case Notice::Level::error:
      break;
  }
  return spdlog::level::err;
}

struct LevelName {
  const char* name;
  int priority;  // of syslog
};

LevelName name_of(Notice::Level level) noexcept {
  switch (level) {
    case Notice::Level::debug:
      return {"debug", 7};
    case Notice::Level::info:
      return {"info", 6};
    case Notice::Level::warning:
      return {"warn", 4};
    case Notice::Level::error:
      break;
  }
  return {"error", 3};
}

// Does stderr lead to the journal? A child of a service may have been given another one (systemd.exec(5)).
bool is_journal(int fd) {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (stream == nullptr || ::fstat(fd, &status) != 0) return false;
  return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

// Nobody's name begins a line, or moves a terminal's cursor.
std::string printable(std::string_view text, std::size_t most) {
  std::string result(text.substr(0, most));
  std::replace_if(
      result.begin(), result.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return result;
}

std::string json_line(const Notice& notice, std::uint64_t unix_ns, std::size_t most) {
  Json fields = Json::object();
  for (const auto& [name, value] : notice.fields) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      fields[name] = text->substr(0, most);
    } else {
      fields[name] = std::get<std::uint64_t>(value);
    }
  }
  const Json line{{"time", format_time(unix_ns)},
                  {"level", name_of(notice.level).name},
                  {"event", notice.event},
                  {"text", notice.text.substr(0, most)},
                  {"fields", std::move(fields)}};
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

spdlog::level::level_enum parse_log_level(const std::string& text) {
  if (text == "trace") return spdlog::level::trace;
  if (text == "debug") return spdlog::level::debug;
  if (text == "info") return spdlog::level::info;
  if (text == "warn") return spdlog::level::warn;
  if (text == "error") return spdlog::level::err;
  if (text == "off") return spdlog::level::off;
  throw std::invalid_argument("'" + text + "' is not a level: choose trace, debug, info, warn, error or off");
}

LogFormat parse_log_format(const std::string& text) {
  if (text == "text") return LogFormat::text;
  if (text == "json") return LogFormat::json;
  throw std::invalid_argument("'" + text + "' is not a format: choose text or json");
}

std::string format_notice(const Notice& notice, LogFormat format, bool journal, std::uint64_t unix_ns) {
  const auto [level, priority] = name_of(notice.level);
  std::string line;
  if (format == LogFormat::json) {
    std::size_t most = most_text_bytes;
    for (line = json_line(notice, unix_ns, most); line.size() > most_line_bytes;) {
      line = json_line(notice, unix_ns, most /= 2);  // cut, and still JSON
    }
    return journal ? fmt::format("<{}>{}", priority, line) : line;
  }
  const std::string text = printable(notice.text, most_text_bytes);
  if (journal) return fmt::format("<{}>{}: {}", priority, notice.event, text);
  return fmt::format("{} {:<5} {}: {}", format_time(unix_ns), level, notice.event, text);
}

Log::Log(const LogSettings& settings) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are for the program's threads
  try {
    pool_ = std::make_shared<spdlog::details::thread_pool>(queued_lines, 1);
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  sink_ = std::make_shared<LogSink>([this](std::uint64_t lines) { return lost_line(lines); },
                                    [pool = pool_.get()] { return std::uint64_t{pool->overrun_counter()}; });
  logger_ = std::make_shared<spdlog::async_logger>("ackring-exchange", sink_, pool_,
                                                   spdlog::async_overflow_policy::overrun_oldest);
  change(settings);
}

Log::~Log() {
  {
    const std::lock_guard guard(mutex_);
    tell_left_out(monotonic_ns(), true);
  }
  pool_.reset();  // its thread ends when the queue is empty
}

void Log::change(const LogSettings& settings) {
  sink_->open(settings.file);
  const std::lock_guard guard(mutex_);
  logger_->set_level(settings.level);
  format_ = settings.format;
  journal_ = settings.file.empty() && is_journal(STDERR_FILENO);
}

void Log::tell(const Notice& notice) {
  if (!logger_->should_log(level_of(notice.level))) return;
  const std::uint64_t now_ns = monotonic_ns();
  const std::lock_guard guard(mutex_);
  tell_left_out(now_ns, false);
  Kind& kind = kinds_[notice.event];
  if (now_ns >= kind.until_ns) kind = {now_ns + quiet_ns, 0, 0};
  if (kind.lines == lines_per_quiet) {
    ++kind.left_out;
    return;
  }
  ++kind.lines;
  write(notice);
}

void Log::tell_left_out(std::uint64_t now_ns, bool all) {
  for (auto& [event, kind] : kinds_) {
    if (kind.left_out == 0 || (now_ns < kind.until_ns && !all)) continue;
    const std::uint64_t lines = std::exchange(kind.left_out, 0);
    write({Notice::Level::warning,
           "log.left_out",
           fmt::format("{} more lines of {} came within 10 s and were left out", lines, event),
           {{"of", std::string(event)}, {"lines", lines}}});
  }
}

void Log::write(const Notice& notice) {
  logger_->log(level_of(notice.level), spdlog::string_view_t(format_notice(notice, format_, journal_, realtime_ns())));
}

// On the thread of the pool. Whoever holds the mutex waits for nothing but the queue's.
std::string Log::lost_line(std::uint64_t lines) {
  const std::lock_guard guard(mutex_);
  return format_notice({Notice::Level::warning,
                        "log.dropped",
                        fmt::format("{} lines were dropped: nobody read them, or there was no room", lines),
                        {{"lines", lines}}},
                       format_, journal_, realtime_ns());
}

}  // namespace ackring::tools
