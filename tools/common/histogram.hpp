// Histogram: counts of values with a relative error of less than 0.1%, in constant memory: log-linear buckets as in
// HdrHistogram (G. Tene): within each power of two, 1,024 buckets of equal width.
//
// Thread rules: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace ackring::tools {

class Histogram {
 public:
  Histogram();

  /// Counts `value`; those beyond largest_value() count as that.
  void record(std::uint64_t value) noexcept;
  void merge(const Histogram& other) noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }
  [[nodiscard]] double mean() const noexcept;
  [[nodiscard]] double standard_deviation() const;
  /// Smallest value (rounded up within its bucket) that at least `percent` of all values do not exceed; 0 if empty.
  [[nodiscard]] std::uint64_t percentile(double percent) const noexcept;

  /// The percentile table that HdrHistogram prints (outputPercentileDistribution, 5 lines per halving), in `unit`
  /// values each: 1000 prints nanoseconds as microseconds.
  [[nodiscard]] std::string percentile_table(double unit) const;

  /// Non-empty buckets, for sending to another process; from_json() takes them back.
  [[nodiscard]] nlohmann::json to_json() const;
  [[nodiscard]] static Histogram from_json(const nlohmann::json& json);

  [[nodiscard]] static std::uint64_t largest_value() noexcept;

 private:
  static std::size_t bucket_of(std::uint64_t value) noexcept;
  static std::uint64_t highest_value_of(std::size_t bucket) noexcept;
  /// Value and cumulated count at `percent`.
  struct Point {
    std::uint64_t value;
    std::uint64_t cumulated;
  };
  [[nodiscard]] Point at_percentile(double percent) const noexcept;

  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
  std::uint64_t sum_ = 0;
};

}  // namespace ackring::tools
