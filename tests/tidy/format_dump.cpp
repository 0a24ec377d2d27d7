// Prints every shared structure of lib/shm/format_fields.hpp as a Markdown table between the markers that
// docs/shm-format.md uses. shm_format.py compares the two, and scripts/update-shm-format writes them.
#include <cstdio>
#include <string_view>

#include "lib/shm/format_fields.hpp"

namespace {

using ackring::shm::layout::Row;

bool is_reserve(std::string_view field) { return field.starts_with("padding") || field.starts_with("reserved"); }

}  // namespace

int main() {
  const Row* open = nullptr;
  auto close = [&open] {
    if (open != nullptr) std::printf("<!-- /layout:%s -->\n", open->type);
  };
  for (const Row& row : ackring::shm::layout::rows) {
    if (row.field == nullptr) {
      close();
      open = &row;
      std::printf("<!-- layout:%s -->\n", row.type);
      std::printf("| `%s`, %zu bytes: offset | bytes | field |\n|---:|---:|---|\n", row.type, row.bytes);
    } else if (is_reserve(row.field)) {
      std::printf("| %zu | %zu | *zero* |\n", row.offset, row.bytes);
    } else {
      std::printf("| %zu | %zu | `%s` |\n", row.offset, row.bytes, row.field);
    }
  }
  close();
  return 0;
}
