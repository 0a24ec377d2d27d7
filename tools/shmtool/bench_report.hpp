// What a run of the benchmark says: JSON, text, CSV, the percentile table.
//
// Thread rules: one thread.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/shmtool/bench.hpp"

namespace ackring::tools {

/// Round trip of one cache line between the cores of exchange and clients, before and after, in nanoseconds.
struct Yardstick {
  double before_ns = 0;
  double after_ns = 0;
  double bare_rings_ns = 0;  // ring_relay_ns(), before and after; 0: not measured

  [[nodiscard]] double mean_ns() const noexcept { return (before_ns + after_ns) / 2; }
  [[nodiscard]] bool changed() const noexcept { return before_ns > 1.5 * after_ns || after_ns > 1.5 * before_ns; }
  /// "near": the cores share a cache; "far": they do not; "changed": by more than 1.5 times during the run.
  [[nodiscard]] const char* regime() const noexcept;
};

/// The object of `bench … --json`: keys of released versions stay, in their order; new ones come behind them.
[[nodiscard]] nlohmann::ordered_json to_json(const BenchOptions& options, const BenchResult& result,
                                             const Yardstick& yardstick);

/// {"cacheline_rtt_ns", "regime_changed" if so, "regime"}, appended to `json`.
void add_yardstick(nlohmann::ordered_json& json, const Yardstick& yardstick);
/// One line: processor, kernel, governor, waiting strategy, round trip of a cache line and its regime.
[[nodiscard]] std::string machine_line(const nlohmann::ordered_json& json);

/// The same for people.
[[nodiscard]] std::string to_text(const nlohmann::ordered_json& json);

/// A line of titles and one per object; "machine" comes as its parts. The objects must have the same keys, of which
/// "regime_changed" is left out.
[[nodiscard]] std::string to_csv(const std::vector<nlohmann::ordered_json>& objects);

/// Throws Failure that names the option.
void write_file(const std::string& option, const std::string& path, const std::string& text);

/// `path` with "-SIZE" before its extension, where there are several sizes.
[[nodiscard]] std::string path_of_size(const std::string& path, std::uint64_t size, bool several);

[[nodiscard]] const char* to_string(Wait wait) noexcept;

}  // namespace ackring::tools
