// Plots of benchmarks as SVG, drawn with gnuplot where it is installed.
//
// Thread rules: one thread; starts a child process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/common/histogram.hpp"

namespace ackring::tools {

/// Throws Failure (status_refused), which names `option` and the package to install, where there is no gnuplot.
void require_gnuplot(const std::string& option);

/// One curve of latencies by percentile per histogram, titles beside them.
void plot_percentiles(const std::string& path, const std::vector<std::string>& titles,
                      const std::vector<Histogram>& histograms);

/// Deliveries and bytes per second against the size of a payload, of objects as `bench … --json` prints.
void plot_sizes(const std::string& path, const std::vector<nlohmann::ordered_json>& results);

}  // namespace ackring::tools
