// Metrics: the document of `stat` as Prometheus's metric families.
//
// Counters count since the subscription or publisher was made, over restarts of the exchange. Labels are names of
// subscriptions and named publishers, and reasons of a fixed set: ephemeral subscriptions and anonymous publishers, of which
// there may be ever new ones, are counted together, as gauges.
//
// Thread rules: plain functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <prometheus/metric_family.h>
#include <nlohmann/json.hpp>

namespace ackring::tools {

/// `document`: of stat, whole. `now_ns`: CLOCK_MONOTONIC. Throws nlohmann::json::exception if it is no such document.
[[nodiscard]] std::vector<prometheus::MetricFamily> metric_families(const nlohmann::json& document,
                                                                    std::uint64_t now_ns);

/// What there is to say of a bus whose exchange does not answer.
[[nodiscard]] std::vector<prometheus::MetricFamily> no_metrics();

/// As text, in Prometheus's exposition format 0.0.4.
[[nodiscard]] std::string metrics_text(const std::vector<prometheus::MetricFamily>& families);

}  // namespace ackring::tools
