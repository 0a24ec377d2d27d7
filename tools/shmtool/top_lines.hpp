// The screen of shmtool top as lines of text: what a look and a view become on a screen of a size.
//
// Thread rules: plain functions; one thread per view.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/shmtool/top_text.hpp"
#include "tools/shmtool/top_view.hpp"

namespace ackring::tools {

struct TopSize {
  std::size_t rows = 24;
  std::size_t columns = 80;
};

/// What the screen must have; a smaller one only says so.
inline constexpr TopSize least_top_size{5, 40};

/// Exactly `size.rows` lines of exactly `size.columns` columns. Keeps in the view how far it is scrolled: never further than
/// there is something to show, and never so that the selected row is out of sight.
[[nodiscard]] std::vector<TextLine> top_lines(const TopLook& look, TopView& view, TopSize size, Charset charset);

/// Everything about one subscription, as many lines as it takes, for a screen so wide. `options`: null where they are not
/// known (yet). Throws nlohmann::json::exception if its row is no row of a stat document.
[[nodiscard]] std::vector<TextLine> detail_lines(const TopSubscription& one, const nlohmann::json& options,
                                                 std::uint64_t monotonic_ns, std::size_t columns, Charset charset);

/// The keys; --help of the command shows them too.
inline constexpr const char* top_keys =
    "  up down PgUp PgDn Home End   move (j k g G too)\n"
    "  Enter                        all about a subscription; Esc: back\n"
    "  Tab                          publishers, and back\n"
    "  s or >, <                    sort by the next column, by the one before\n"
    "  r                            the other way round\n"
    "  /                            filter names and patterns; Esc: show all\n"
    "  p or space                   pause, and go on\n"
    "  + -                          look less often, more often\n"
    "  h or ?                       this list\n"
    "  q                            quit\n";

}  // namespace ackring::tools
