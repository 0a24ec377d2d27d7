// How `shmtool dlq` shows dead letters to people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ackring::tools {

/// Titles and row of a table of dead letters, a line each. `letter` is an object of `shmtool dlq show --json`.
[[nodiscard]] std::vector<std::string> dead_letter_titles();
[[nodiscard]] std::vector<std::string> dead_letter_row(std::string_view letter);

/// Everything about one of them, several lines.
[[nodiscard]] std::string dead_letter_text(std::string_view letter);

}  // namespace ackring::tools
