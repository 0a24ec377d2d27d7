// The events of the demo: real ones, from the machine's package log, its package list, or a file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/shmtool/pub_input.hpp"

namespace ackring::tools {

struct DemoInput {
  std::string source;  ///< for people: where the events come from
  std::vector<Event> events;
};

/// `text` as one word of a topic: characters that a word can't hold become '_'; never empty.
[[nodiscard]] std::string topic_word(std::string_view text);

/// The topic of a line of dpkg.log, `dpkg.<action>.<package>`; empty for lines that are about no package.
[[nodiscard]] std::string dpkg_topic(std::string_view line);

/// The package log; where it is missing or empty, the list of installed packages. Throws Failure if there is neither.
[[nodiscard]] DemoInput read_packages();
/// A file of objects with `topic` and `data`, one per line. Throws Failure (status_usage) naming file and line.
[[nodiscard]] DemoInput read_ndjson(const std::string& path);

}  // namespace ackring::tools
