#include "tools/common/units.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>
#include <stdexcept>
#include <utility>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "lib/shm/environment.hpp"

namespace ackring::tools {
namespace {

constexpr const char* duration_advice =
    "write a number with ns, us, ms, s, m or h, such as 250ms; a bare number is seconds";
constexpr const char* size_advice = "write a whole number of bytes, or one with KiB, MiB or GiB, such as 4KiB";

// The number that `text` begins with; what follows it is left in `unit`.
double leading_number(std::string_view text, std::string_view& unit, const char* what, const char* advice) {
  double number = 0;
  // No sign, no "inf", no "nan": the first byte is a digit or a point.
  const bool plausible = !text.empty() && (text[0] == '.' || (text[0] >= '0' && text[0] <= '9'));
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (!plausible || error != std::errc()) {
    throw std::invalid_argument(fmt::format("'{}' is not a {}: {}", text, what, advice));
  }
  unit = text.substr(static_cast<std::size_t>(end - text.data()));
  return number;
}

std::uint64_t clock_ns(clockid_t clock) noexcept {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

Nanoseconds parse_duration(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 7> units{
      {{"", 1e9}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}}};
  std::string_view unit;
  const double number = leading_number(text, unit, "duration", duration_advice);
  for (const auto& [name, factor] : units) {
    if (unit != name) continue;
    const double nanoseconds = number * factor;
    if (nanoseconds >= 9.2e18)
      throw std::invalid_argument(fmt::format("'{}' is too long: 292 years are the most", text));
    return Nanoseconds(std::llround(nanoseconds));
  }
  throw std::invalid_argument(fmt::format("'{}' has the unknown unit '{}': {}", text, unit, duration_advice));
}

std::uint64_t parse_size(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, unsigned>, 5> units{
      {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}}};
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) throw std::invalid_argument(fmt::format("'{}' is not a size: {}", text, size_advice));
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  for (const auto& [name, shift] : units) {
    if (unit != name) continue;
    if (number > std::numeric_limits<std::uint64_t>::max() >> shift) {
      throw std::invalid_argument(fmt::format("'{}' is too large: 64 bits hold less than 16 EiB", text));
    }
    return number << shift;
  }
  throw std::invalid_argument(fmt::format("'{}' has the unknown unit '{}': {}", text, unit, size_advice));
}

std::string format_duration(double nanoseconds) {
  if (nanoseconds < 1e3) return fmt::format("{:.0f} ns", nanoseconds);
  if (nanoseconds < 1e6) return fmt::format("{:.{}f} us", nanoseconds / 1e3, nanoseconds < 1e4 ? 2 : 1);
  if (nanoseconds < 1e9) return fmt::format("{:.{}f} ms", nanoseconds / 1e6, nanoseconds < 1e7 ? 2 : 1);
  return fmt::format("{:.2f} s", nanoseconds / 1e9);
}

std::string format_count(std::uint64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

std::string format_rate(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:.2f} million", per_second / 1e6);
  if (per_second >= 1e4) return fmt::format("{:.1f} thousand", per_second / 1e3);
  return fmt::format("{:.0f}", per_second);
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1023.95 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string format_time(std::uint64_t unix_ns) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(unix_ns / 1'000'000'000)),
                     unix_ns / 1'000'000 % 1000);
}

std::uint64_t monotonic_ns() noexcept { return shm::Environment::now_ns(); }

std::uint64_t monotonic_ns_behind() noexcept {
#if defined(__x86_64__)
  asm volatile("lfence" ::: "memory");
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
  return monotonic_ns();
}

std::uint64_t realtime_ns() noexcept { return clock_ns(CLOCK_REALTIME); }

}  // namespace ackring::tools
