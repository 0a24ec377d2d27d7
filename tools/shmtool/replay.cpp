// shmtool replay: publishes what shmtool record has written, with the recorded distances in time, faster, or at once.
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/publish_loop.hpp"
#include "tools/shmtool/recording_reader.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

struct ReplayOptions {
  std::string file;
  double speed = 1;
  bool fastest = false;
  Nanoseconds longest_gap{0};  // 0: as recorded
  std::uint64_t skip = 0;
  std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
  std::string name;
  std::string topic_prefix;
  std::uint64_t ring_bytes = limits::default_ring_bytes;
  Nanoseconds timeout{0};  // 0: none
};

// When each event is due. They keep their order: one that was published before the one ahead of it in the recording (of
// another publisher) is due at once.
class Pace {
 public:
  explicit Pace(const ReplayOptions& options) : options_(options) {}

  PublishLoop::Clock::time_point due(std::uint64_t published_unix_ns) {
    const auto now = PublishLoop::Clock::now();
    if (options_.fastest || published_unix_ns == 0) return now;
    if (latest_unix_ns_ == 0) {
      due_ = now;
      latest_unix_ns_ = published_unix_ns;
    }
    if (published_unix_ns <= latest_unix_ns_) return due_;
    // Beyond a year nobody waits for the end; a double of such a number of nanoseconds fits any clock.
    constexpr double longest_ns = 365.0 * 24 * 3600 * 1e9;
    const double gap_ns = static_cast<double>(published_unix_ns - latest_unix_ns_) / options_.speed;
    Nanoseconds gap(static_cast<std::int64_t>(std::min(gap_ns, longest_ns)));
    if (options_.longest_gap > Nanoseconds{0}) gap = std::min(gap, options_.longest_gap);
    latest_unix_ns_ = published_unix_ns;
    return due_ += gap;
  }

 private:
  const ReplayOptions& options_;
  PublishLoop::Clock::time_point due_;
  std::uint64_t latest_unix_ns_ = 0;
};

PublisherOptions publisher_options(const ReplayOptions& options) {
  PublisherOptions publisher_options;
  publisher_options.name = options.name;
  publisher_options.ring_bytes = options.ring_bytes;
  return publisher_options;
}

void publish_all(PublishLoop& loop, RecordingReader& reader, const ReplayOptions& options) {
  RecordedEvent recorded;
  Pace pace(options);
  std::string prefixed;
  for (std::uint64_t skipped = 0; loop.published() < options.count && reader.next(recorded);) {
    if (skipped < options.skip) {
      ++skipped;
      continue;
    }
    if (!options.topic_prefix.empty()) {
      prefixed = options.topic_prefix;
      if (!prefixed.ends_with('.')) prefixed += '.';
      recorded.event.topic.insert(0, prefixed);
    }
    // What the bus had kept from before the recording was there at its beginning.
    const std::uint64_t published_ns =
        recorded.published_unix_ns == 0 ? 0 : std::max(recorded.published_unix_ns, reader.started_unix_ns());
    if (!loop.wait_until(pace.due(published_ns), "the recording goes on")) return;
    if (!loop.publish(recorded.event, {}, reader.where())) return;
  }
}

int run(const Globals& globals, const ReplayOptions& options) {
  catch_stop_signals();
  RecordingReader reader(options.file);
  PublishLoop loop(globals, publisher_options(options), options.timeout);
  const int status = loop.run([&] { publish_all(loop, reader, options); });
  if (reader.missed() > 0) {
    print_error("shmtool", fmt::format("{}: {} events are missing from it: its recorder could not follow, or they were "
                                       "too large for its ring: what it has is published",
                                       options.file, format_count(reader.missed())));
  }
  return status;
}

}  // namespace

void add_replay(CLI::App& app, Globals& globals) {
  CLI::App& command =
      add_command(app, "replay", "Publish what record has written",
                  "Reads both formats of record, and the lines of sub, tail and dlq export. Topic, key, headers and "
                  "payload are those\n"
                  "of the recording, byte for byte; publisher, sequence and time are new. Events keep their order and, "
                  "unless told\n"
                  "otherwise, their distances in time. Waits for room where a subscription is full. A line that is no "
                  "event ends it\n"
                  "with an error that names the line, once what is before it is routed: mend it, and go on with "
                  "--skip. Of a file that\n"
                  "was cut short, all whole events are published, and the exit status is 1. The last line is "
                  "`published N events`.\n\n"
                  "Examples:\n  shmtool replay orders.ndjson\n  shmtool replay day.rec --speed 10 --max-gap 5s\n"
                  "  shmtool replay day.rec --max --topic-prefix test --bus lab");
  auto options = std::make_shared<ReplayOptions>();
  command.add_option("FILE", options->file, "File to read; - is stdin")->required();
  auto* speed = add_parsed(command, "--speed", "FACTOR", "How much faster than it was recorded (1)",
                           [options = options.get()](const std::string& text) {
                             options->speed = parse_real(text, "a factor: write a number above 0, such as 10 or 0.5");
                             if (options->speed <= 0) {
                               throw std::invalid_argument("'" + text + "' is not a factor: write a number above 0");
                             }
                           });
  command.add_flag("--max", options->fastest, "As fast as the bus takes it")->excludes(speed);
  add_duration(command, "--max-gap", options->longest_gap, "Wait no longer than this between two events (as recorded)");
  command.add_option("--skip", options->skip, "Leave out so many events at the beginning (0)");
  command.add_option("--count", options->count, "Publish this many events at most")
      ->check(above_zero())
      ->default_str("all");
  command.add_option("--name", options->name, "Name of the publisher; it keeps its sequence over restarts")
      ->type_name("PUB");
  command.add_option("--topic-prefix", options->topic_prefix, "Words to put before each topic, such as test")
      ->type_name("WORDS");
  add_size(command, "--ring", options->ring_bytes, "Size of the publisher's ring, a power of two (4MiB)");
  add_duration(command, "--timeout", options->timeout, "Give up after this long, exit status 1");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
