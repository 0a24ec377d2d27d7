// Text for a screen of fixed size: styles, what fits into how many columns, bars, and numbers of a few characters.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ackring::tools {

enum class Style : std::uint8_t { plain, strong, faint, title, sorted, selected, good, warning, bad };

struct Span {
  std::string text;
  Style style = Style::plain;
};

/// A line of a screen, from the left.
using TextLine = std::vector<Span>;

/// What the terminal can show: UTF-8 (the locale says so: setlocale() must have been called), or ASCII only.
enum class Charset : std::uint8_t { ascii, utf8 };

/// Columns that `text` takes on a screen, as show_safely() leaves it.
[[nodiscard]] std::size_t columns_of(std::string_view text, Charset charset);

/// `text` without what a terminal would obey, or what the charset does not have: each such character is a '?'.
[[nodiscard]] std::string show_safely(std::string_view text, Charset charset);

/// `text`, shown safely, in exactly `columns` columns: padded on the right, or on the left if `right`; what is cut off is
/// marked by an ellipsis ('~' in ASCII).
[[nodiscard]] std::string fit(std::string_view text, std::size_t columns, Charset charset, bool right = false);

/// The line in exactly `columns` columns: cut, or filled with blanks of the style `rest`.
[[nodiscard]] TextLine fit_line(const TextLine& line, std::size_t columns, Charset charset, Style rest = Style::plain);

/// A bar of `fraction` (0 … 1, others are clamped) of `columns`. What is above 0 shows; as long as the bar is, no longer.
[[nodiscard]] std::string bar(double fraction, std::size_t columns, Charset charset);

/// At most five characters: `0`, `9999`, `12.3k`, `123k`, `1.23M`.
[[nodiscard]] std::string compact_count(std::uint64_t count);
/// At most five characters: `0`, `7.3`, `250`, `12.3k`.
[[nodiscard]] std::string compact_rate(double per_second);
/// At most six characters: `780ns`, `12.3us`, `250ms`, `12.3s`, `5m07s`, `3h05m`, `12d03h`, `350d`.
[[nodiscard]] std::string compact_time(std::uint64_t ns);

}  // namespace ackring::tools
