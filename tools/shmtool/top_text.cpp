#include "tools/shmtool/top_text.hpp"

#include <algorithm>
#include <cmath>
#include <cwchar>

#include <fmt/format.h>

#include "lib/shm/utf8.hpp"

namespace ackring::tools {
namespace {

struct Character {
  std::string_view bytes;   // of the text
  std::size_t columns = 1;  // on the screen
  bool shown = true;        // false: a '?' stands for it
};

Character character_at(std::string_view text, std::size_t at, Charset charset) {
  const std::size_t size = shm::utf8_bytes(text, at);
  Character character{text.substr(at, std::max<std::size_t>(size, 1)), 1, size != 0};
  if (size == 1) {
    const auto byte = static_cast<unsigned char>(text[at]);
    character.shown = byte >= 0x20 && byte != 0x7f;
  } else if (size > 1) {
    std::mbstate_t state{};
    wchar_t wide = 0;
    const bool known = charset == Charset::utf8 && std::mbrtowc(&wide, character.bytes.data(), size, &state) == size;
    const int columns = known ? ::wcwidth(wide) : -1;  // -1 of control characters too
    character.shown = columns >= 0;
    if (columns >= 0) character.columns = static_cast<std::size_t>(columns);
  }
  return character;
}

// The first characters of `text`, as many as there are columns for; `used`: how many of them it takes.
std::string first_of(std::string_view text, std::size_t columns, Charset charset, std::size_t& used) {
  std::string result;
  used = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at, charset);
    if (used + character.columns > columns) break;
    result += character.shown ? character.bytes : "?";
    used += character.columns;
    at += character.bytes.size();
  }
  return result;
}

constexpr std::size_t all = static_cast<std::size_t>(-1) / 2;

// Three digits and a unit, or less.
std::string three_digits(double value, const char* unit) {
  return fmt::format("{:.{}f}{}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, unit);
}

}  // namespace

std::size_t columns_of(std::string_view text, Charset charset) {
  std::size_t used = 0;
  (void)first_of(text, all, charset, used);
  return used;
}

std::string show_safely(std::string_view text, Charset charset) {
  std::size_t used = 0;
  return first_of(text, all, charset, used);
}

std::string fit(std::string_view text, std::size_t columns, Charset charset, bool right) {
  std::size_t used = 0;
  std::string result;
  if (columns_of(text, charset) <= columns) {
    result = first_of(text, columns, charset, used);
  } else if (columns > 0) {
    result = first_of(text, columns - 1, charset, used) + (charset == Charset::utf8 ? "…" : "~");
    ++used;
  }
  const std::string padding(columns - used, ' ');
  return right ? padding + result : result + padding;
}

TextLine fit_line(const TextLine& line, std::size_t columns, Charset charset, Style rest) {
  TextLine result;
  std::size_t left = columns;
  for (const Span& span : line) {
    const std::size_t wanted = columns_of(span.text, charset);
    if (wanted == 0) continue;
    if (left == 0) break;
    result.push_back({fit(span.text, std::min(wanted, left), charset), span.style});
    left -= std::min(wanted, left);
  }
  if (left != 0) result.push_back({std::string(left, ' '), rest});
  return result;
}

std::string bar(double fraction, std::size_t columns, Charset charset) {
  const double clamped = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0;
  if (clamped <= 0) return "";
  const std::size_t parts = charset == Charset::utf8 ? 8 : 1;  // of a column
  const auto length =
      std::max<std::size_t>(static_cast<std::size_t>(std::lround(clamped * static_cast<double>(columns * parts))), 1);
  std::string text;
  for (std::size_t i = 0; i < length / parts && i < columns; ++i) text += charset == Charset::utf8 ? "█" : "#";
  static constexpr const char* eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (parts == 8 && columns != 0) text += eighths[length % parts];
  return text;
}

std::string compact_count(std::uint64_t count) {
  if (count < 10'000) return std::to_string(count);
  static constexpr const char* units[] = {"k", "M", "G", "T", "P", "E"};
  double value = static_cast<double>(count) / 1000;
  std::size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < std::size(units); ++unit) value /= 1000;
  return three_digits(value, units[unit]);
}

std::string compact_rate(double per_second) {
  if (!(per_second > 0)) return "0";
  if (per_second < 99.95) return fmt::format("{:.1f}", per_second);
  return compact_count(static_cast<std::uint64_t>(std::llround(std::min(per_second, 1e18))));
}

std::string compact_time(std::uint64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns < 1000) return fmt::format("{}ns", ns);
  const auto in = [value](double unit_ns, const char* unit) {
    return fmt::format("{:.{}f}{}", value / unit_ns, value / unit_ns < 99.95 ? 1 : 0, unit);
  };
  if (value < 999.5e3) return in(1e3, "us");
  if (value < 999.5e6) return in(1e6, "ms");
  if (value < 59.95e9) return in(1e9, "s");
  const std::uint64_t seconds = (ns + 500'000'000) / 1'000'000'000;
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  const std::uint64_t minutes = seconds / 60;
  if (minutes < 24 * 60) return fmt::format("{}h{:02}m", minutes / 60, minutes % 60);
  const std::uint64_t hours = minutes / 60;
  if (hours < 100 * 24) return fmt::format("{}d{:02}h", hours / 24, hours % 24);
  return fmt::format("{}d", hours / 24);
}

}  // namespace ackring::tools
