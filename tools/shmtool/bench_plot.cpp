#include "tools/shmtool/bench_plot.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <sstream>

#include <fmt/format.h>

#include "tools/common/child.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/bench_report.hpp"

namespace ackring::tools {
namespace {

std::string gnuplot() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string program = folder + "/gnuplot";
    if (!folder.empty() && ::access(program.c_str(), X_OK) == 0) return program;
  }
  return {};
}

// In the single quotes of gnuplot, where a quote is written twice.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

// Of a logarithmic axis, with some room. Given to gnuplot, which else warns where all values are one.
class Range {
 public:
  void add(double value) {
    least_ = std::min(least_, value);
    most_ = std::max(most_, value);
  }
  [[nodiscard]] std::string text(const char* axis) const {
    return fmt::format("set {}range [{}:{}]\n", axis, least_ / 1.25, most_ * 1.25);
  }

 private:
  double least_ = std::numeric_limits<double>::max();
  double most_ = 0;
};

void draw(const std::string& path, const std::string& script) {
  // Fails here, with a reason, and not in gnuplot, where the file can't be made.
  write_file("--plot", path, "");
  const TemporaryDirectory directory("plot");
  const std::string file = directory.path() + "/script";
  write_file("--plot", file,
             fmt::format("set terminal svg size 900,540 dynamic background 'white'\nset output {}\nset grid\n{}",
                         quoted(path), script));
  Child child = Child::execute({gnuplot(), file});
  if (child.wait(std::chrono::seconds(60)).value_or(-1) != 0)
    throw Failure(status_refused, "--plot " + path + ": gnuplot failed: see its message");
}

}  // namespace

void require_gnuplot(const std::string& option) {
  if (gnuplot().empty())
    throw Failure(status_refused, option + ": gnuplot is not installed: install the package gnuplot-nox");
}

void plot_percentiles(const std::string& path, const std::vector<std::string>& titles,
                      const std::vector<Histogram>& histograms) {
  std::string script =
      "set logscale xy\nset xlabel 'Percentile'\nset ylabel 'Latency, ns'\nset key left top\n"
      "set xtics ('0' 1, '50' 2, '90' 10, '99' 100, '99.9' 1000, '99.99' 10000, '99.999' 100000, '99.9999' 1000000)\n"
      "set format y '%.0s %c'\n";
  std::string plots;
  Range latencies;
  for (std::size_t i = 0; i < histograms.size(); ++i) {
    script += fmt::format("$data{} << END\n", i);
    // As far as there are values to tell one percentile from the next.
    const auto furthest = static_cast<double>(std::max<std::uint64_t>(histograms[i].count(), 2));
    for (double distance = 1; distance < furthest * 1.1; distance *= 1.15) {
      const double nearest = std::min(distance, furthest);
      const auto value = static_cast<double>(std::max<std::uint64_t>(1, histograms[i].percentile(100 - 100 / nearest)));
      latencies.add(value);
      script += fmt::format("{} {}\n", nearest, value);
    }
    script += "END\n";
    plots += fmt::format("{}$data{} using 1:2 with lines lw 2 title {}", i == 0 ? "plot " : ", ", i, quoted(titles[i]));
  }
  draw(path, script + latencies.text("y") + plots + "\n");
}

void plot_sizes(const std::string& path, const std::vector<nlohmann::ordered_json>& results) {
  std::string script =
      "set logscale xyy2\nset xlabel 'Bytes of a payload'\nset ylabel 'Deliveries per second'\nset y2label 'MB/s'\n"
      "set ytics nomirror\nset y2tics\nset key left bottom\nset format y '%.0s %c'\n$data << END\n";
  std::string ticks;
  Range sizes;
  Range deliveries;
  Range megabytes;
  for (const nlohmann::ordered_json& result : results) {
    const auto size = result.at("size").get<std::uint64_t>();
    // Nothing has no logarithm: it stands where half a byte would.
    const double place = size == 0 ? 0.5 : static_cast<double>(size);
    ticks += fmt::format("{}'{}' {}", ticks.empty() ? "" : ", ", size, place);
    const auto per_second = result.at("deliveries_per_s").get<double>();
    const double megabytes_per_s = result.at("bytes_per_s").get<double>() / 1e6;
    sizes.add(place);
    deliveries.add(per_second);
    if (size > 0) megabytes.add(megabytes_per_s);
    script += fmt::format("{} {} {}\n", place, per_second, size == 0 ? "NaN" : fmt::format("{}", megabytes_per_s));
  }
  script +=
      "END\nset xtics (" + ticks + ") rotate by -45\n" + sizes.text("x") + deliveries.text("y") + megabytes.text("y2");
  draw(path, script +
                 "plot $data using 1:2 with linespoints lw 2 title 'deliveries per second', "
                 "$data using 1:3 axes x1y2 with linespoints lw 2 title 'MB/s'\n");
}

}  // namespace ackring::tools
