// A dead letter as a line of JSON: what `shmtool dlq` prints, and Bus::dead_letters_ndjson answers.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "lib/control/topic_table.hpp"
#include "lib/ring/record.hpp"

namespace ackring::client {

/// One object and a line break. `event` is a record of a dead-letter log.
[[nodiscard]] std::string dead_letter_line(const ring::EventParts& event, const control::TopicReader& topics,
                                           const shm::ExchangeSegment& page);

}  // namespace ackring::client
