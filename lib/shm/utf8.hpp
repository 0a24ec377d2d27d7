// Text that another process wrote: what of it is UTF-8, and what may be shown.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ackring::shm {

/// Bytes of the well-formed UTF-8 character (no surrogate, no overlong form) that begins at `at`; 0: none does.
[[nodiscard]] std::size_t utf8_bytes(std::string_view text, std::size_t at) noexcept;

/// `text` as UTF-8 that changes no terminal: each control character, and each byte that is no UTF-8, becomes a '?'.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace ackring::shm
