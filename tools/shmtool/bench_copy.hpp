// The yardstick of large events: the same bytes copied by memcpy alone.
#pragma once

#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

/// Seconds that `count` payloads of options.size take from the core of the first client into one shared buffer, and from
/// there, by the core of the exchange, into options.subscribers others: the way of an event, with nothing but memcpy and
/// one counter per direction. The buffers are files of options.directory, as large as the rings, and used in turn like
/// them: both cores copy at once, each as far ahead as the buffer between them allows. The pages are mapped before the
/// clock starts. Throws Failure.
[[nodiscard]] double copy_seconds(const BenchOptions& options, std::uint64_t count);

}  // namespace ackring::tools
