// Which event is meant, as people write it.
#pragma once

#include <cstdint>
#include <string>

#include "ackring/inspect.hpp"

namespace ackring::tools {

/// Digits only, 1 or more. Throws std::invalid_argument.
[[nodiscard]] std::uint64_t parse_positive(const std::string& text);

/// `17`, a delivery, or `shop/17`, PUBLISHER/SEQUENCE. Throws std::invalid_argument.
[[nodiscard]] EventSelection parse_event_id(const std::string& text);

}  // namespace ackring::tools
