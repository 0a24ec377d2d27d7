// Answers of the exchange that are too large for a message: files of memory.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lib/client/connection.hpp"
#include "lib/ring/record.hpp"

namespace ackring::client {

/// What is in the file that came with a reply. Throws Error (system; protocol: none came).
[[nodiscard]] std::string read_answer(Reply& reply);

/// Calls `each` with the records of which an answer consists. Throws Error (protocol: one is cut off).
void each_record(std::string_view records, const std::function<void(const ring::EventParts&)>& each);

}  // namespace ackring::client
