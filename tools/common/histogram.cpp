#include "tools/common/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include <fmt/format.h>

namespace ackring::tools {
namespace {

constexpr unsigned linear_bits = 10;
constexpr std::uint64_t linear_buckets = 1u << linear_bits;
constexpr unsigned largest_bits = 42;  // 2^42 ns are 73 minutes
constexpr std::size_t bucket_count = (largest_bits - linear_bits + 1) * linear_buckets;

}  // namespace

Histogram::Histogram() : counts_(bucket_count, 0) {}

std::uint64_t Histogram::largest_value() noexcept { return (std::uint64_t{1} << largest_bits) - 1; }

std::size_t Histogram::bucket_of(std::uint64_t value) noexcept {
  if (value < 2 * linear_buckets) return value;
  const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - (linear_bits + 1);
  return shift * linear_buckets + (value >> shift);
}

std::uint64_t Histogram::highest_value_of(std::size_t bucket) noexcept {
  if (bucket < 2 * linear_buckets) return bucket;
  const std::uint64_t shift = bucket / linear_buckets - 1;
  return ((bucket - shift * linear_buckets + 1) << shift) - 1;
}

void Histogram::record(std::uint64_t value) noexcept {
  value = std::min(value, largest_value());
  ++counts_[bucket_of(value)];
  ++count_;
  sum_ += value;
  max_ = std::max(max_, value);
}

void Histogram::merge(const Histogram& other) noexcept {
  for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
}

double Histogram::mean() const noexcept {
  return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
}

double Histogram::standard_deviation() const {
  if (count_ == 0) return 0;
  const double average = mean();
  double squares = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] == 0) continue;
    const double distance = static_cast<double>(highest_value_of(i)) - average;
    squares += distance * distance * static_cast<double>(counts_[i]);
  }
  return std::sqrt(squares / static_cast<double>(count_));
}

Histogram::Point Histogram::at_percentile(double percent) const noexcept {
  const double wanted = std::ceil(std::min(percent, 100.0) / 100 * static_cast<double>(count_));
  const std::uint64_t rank =
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(wanted), 1, std::max<std::uint64_t>(count_, 1));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= rank) return {std::min(highest_value_of(i), max_), seen};
  }
  return {max_, count_};
}

std::uint64_t Histogram::percentile(double percent) const noexcept { return at_percentile(percent).value; }

std::string Histogram::percentile_table(double unit) const {
  std::string text =
      fmt::format("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
  const auto scaled = [unit](double value) { return value / unit; };
  constexpr double lines_per_halving = 5;
  double percent = 0;
  while (count_ > 0) {
    const Point point = at_percentile(percent);
    text += fmt::format("{:12.3f} {:14.12f} {:10} {:14.2f}\n", scaled(static_cast<double>(point.value)), percent / 100,
                        point.cumulated, 100 / (100 - percent));
    if (point.cumulated == count_) break;  // one more line closes the table
    // The steps halve each time the distance to 100% halves.
    const double halvings = std::floor(std::log2(100 / (100 - percent))) + 1;
    percent += 100 / (std::exp2(halvings) * lines_per_halving);
  }
  if (count_ > 0) text += fmt::format("{:12.3f} {:14.12f} {:10}\n", scaled(static_cast<double>(max_)), 1.0, count_);
  text +=
      fmt::format("#[Mean    = {:12.3f}, StdDeviation   = {:12.3f}]\n", scaled(mean()), scaled(standard_deviation()));
  text += fmt::format("#[Max     = {:12.3f}, Total count    = {:12}]\n", scaled(static_cast<double>(max_)), count_);
  text += fmt::format("#[Buckets = {:12}, SubBuckets     = {:12}]\n", largest_bits - linear_bits, 2 * linear_buckets);
  return text;
}

nlohmann::json Histogram::to_json() const {
  nlohmann::json buckets = nlohmann::json::array();
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] != 0) buckets.push_back({i, counts_[i]});
  }
  return {{"buckets", std::move(buckets)}, {"max", max_}, {"sum", sum_}};
}

Histogram Histogram::from_json(const nlohmann::json& json) {
  Histogram histogram;
  for (const auto& pair : json.at("buckets")) {
    const auto count = pair.at(1).get<std::uint64_t>();
    histogram.counts_.at(pair.at(0).get<std::size_t>()) += count;
    histogram.count_ += count;
  }
  histogram.max_ = json.at("max").get<std::uint64_t>();
  histogram.sum_ = json.at("sum").get<std::uint64_t>();
  return histogram;
}

}  // namespace ackring::tools
