// What the modes of shmtool bench share besides the bus.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ackring::tools {

/// `0,64,4KiB`. Throws std::invalid_argument; for sizes below `least`, too.
[[nodiscard]] std::vector<std::uint64_t> parse_sizes(const std::string& text, std::uint64_t least);

}  // namespace ackring::tools
