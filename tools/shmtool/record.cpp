// shmtool record: writes events to a file as they are published, for shmtool replay. A tap as tail is: an ephemeral
// subscription, at most once, that drops its oldest events rather than make a publisher wait.
//
// At-least-once would gain nothing: an ephemeral subscription ends with its recorder, so nobody could take again what a
// killed one had not written; a stopped one would get events twice, out of order, once their ack timeouts were over; and
// each event would cost an ack. What a recording must not do is lose events and keep silent. So it gets a long backlog,
// takes what was routed before its end, and asks the exchange at the end how many events it dropped.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "lib/shm/descriptor.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/recording_file.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Nanoseconds slice = std::chrono::milliseconds(100);  // how long a signal may go unseen
constexpr std::size_t write_bytes = 256u << 10;
constexpr std::uint64_t default_backlog_bytes = 256u << 20;
// What was routed before the end is written still, unless that takes longer.
constexpr std::chrono::seconds most_drain_time{10};

struct RecordOptions {
  std::vector<std::string> patterns;
  std::string output = "-";
  bool compact = false;
  std::uint64_t count = 0;  // 0: no limit
  Nanoseconds timeout{0};   // 0: none
  StartFrom from = StartFrom::now;
  std::uint64_t ring_bytes = limits::default_ring_bytes;
  std::uint64_t max_bytes = default_backlog_bytes;
};

// The file, or stdout; written in large pieces.
class Output {
 public:
  explicit Output(const std::string& path) : path_(path) {
    if (path == "-") return;
    fd_ = shm::UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!fd_) {
      throw Failure(status_usage, path + ": can't write it: " + std::strerror(errno) + ": choose another --output");
    }
  }

  [[nodiscard]] std::string& buffer() noexcept { return buffer_; }
  [[nodiscard]] bool is_stdout() const noexcept { return !fd_; }

  void flush() {
    if (is_stdout()) {
      print(buffer_);
    } else {
      write_file(buffer_);
    }
    buffer_.clear();
  }

 private:
  void write_file(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
      if (written >= 0) {
        bytes.remove_prefix(static_cast<std::size_t>(written));
      } else if (errno == EPIPE) {
        throw ClosedPipe();  // a pipe by name
      } else if (errno != EINTR) {
        throw Failure(status_refused, path_ + ": can't write: " + std::strerror(errno) +
                                          ": make room; what it has up to here can be replayed");
      }
    }
  }

  const std::string path_;
  shm::UniqueFd fd_;
  std::string buffer_;
};

SubscriptionOptions tap(const RecordOptions& options) {
  SubscriptionOptions tap;
  tap.patterns = options.patterns;
  tap.guarantee = at_most_once;
  tap.overflow = Overflow::drop_oldest;
  tap.from = options.from;
  tap.ring_bytes = options.ring_bytes;
  tap.max_bytes = options.max_bytes;
  return tap;
}

class Recorder {
 public:
  Recorder(const Globals& globals, const RecordOptions& options)
      : globals_(globals),
        options_(options),
        started_(Clock::now()),
        // Taken once: the recorded distances are those of the clock that stamps events, whatever the wall clock does.
        to_unix_ns_(realtime_ns() - monotonic_ns()),
        bus_(open_bus(globals)),
        subscriber_(bus_.subscribe(tap(options))),
        output_(options.output) {}  // last: where there is no bus, the file stays what it was

  int run() {
    if (options_.compact) CompactWriter::begin(monotonic_ns() + to_unix_ns_, output_.buffer());
    try {
      output_.flush();  // whoever waits for the file sees that the recording has begun
      while (!finished()) take_one(slice);
      if (!count_reached()) drain();
    } catch (const ClosedPipe&) {
      return status_done;
    }
    return end();
  }

 private:
  [[nodiscard]] bool count_reached() const { return options_.count > 0 && recorded_ == options_.count; }
  [[nodiscard]] bool finished() const {
    return stop_requested() || subscriber_.closed() || count_reached() || time_left() <= Nanoseconds{0};
  }
  [[nodiscard]] Nanoseconds time_left() const {
    if (options_.timeout <= Nanoseconds{0}) return std::chrono::hours(24 * 365);
    return started_ + options_.timeout - Clock::now();
  }

  // False: there was nothing to take.
  bool take_one(Nanoseconds wait) {
    // What is there is written before anything is waited for.
    std::optional<Delivery> delivery = subscriber_.take();
    if (!delivery) {
      if (output_.is_stdout() && stdout_closed()) throw ClosedPipe();
      output_.flush();
      delivery = subscriber_.take(std::clamp<Nanoseconds>(time_left(), std::chrono::milliseconds(1), wait));
      if (!delivery) return false;
    }
    write(*delivery);
    return true;
  }

  void write(const Delivery& delivery) {
    event_.event.topic = delivery.topic();
    event_.event.key = delivery.key();
    event_.event.headers = delivery.headers();
    event_.event.payload = delivery.text();
    event_.publisher = delivery.publisher();
    event_.sequence = delivery.sequence();
    event_.delivery = delivery.delivery();
    event_.attempt = delivery.attempt();
    event_.published_unix_ns = delivery.published_ns() + to_unix_ns_;
    if (options_.compact) {
      compact_.add(event_, output_.buffer());
    } else {
      output_.buffer() += recorded_line(event_);
    }
    ++recorded_;
    last_delivery_ = std::max(last_delivery_, event_.delivery);
    if (output_.buffer().size() >= write_bytes) output_.flush();
  }

  // What was routed before the end, and is on its way.
  void drain() {
    if (subscriber_.closed()) return;
    const std::uint64_t matched = own_numbers().value("matched", std::uint64_t{0});
    const auto deadline = Clock::now() + most_drain_time;
    while (last_delivery_ < matched && !count_reached() && Clock::now() < deadline && take_one(slice)) {
    }
  }

  // What stat says of this subscription; an empty object where nobody can tell.
  [[nodiscard]] nlohmann::json own_numbers() const {
    try {
      const nlohmann::json document = stat_document(globals_);
      for (const auto& subscription : document.at("subscriptions")) {
        if (subscription.at("name") == subscriber_.name()) return subscription;
      }
    } catch (const std::exception&) {
      // The recording itself is whole without it.
    }
    return nlohmann::json::object();
  }

  int end() {
    const bool closed = subscriber_.closed();
    const nlohmann::json numbers = own_numbers();
    std::uint64_t missed = 0;
    std::string reasons;
    std::string advice;
    if (numbers.contains("dropped")) {
      for (const auto& [reason, count] : numbers.at("dropped").items()) {
        missed += count.get<std::uint64_t>();
        const bool large = reason == "too-large";
        reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", and ", format_count(count.get<std::uint64_t>()),
                               large ? "were larger than a quarter of its ring" : "came when its backlog was full");
        advice +=
            fmt::format("{}{}", advice.empty() ? "" : " and ", large ? "a larger --ring" : "a larger --max-bytes");
      }
    }
    // Of a recording that ended by its count, what was dropped behind the last event is none of its events.
    if (count_reached()) missed = std::min(missed, last_delivery_ - recorded_);
    if (options_.compact) compact_.end(missed, output_.buffer());
    try {
      output_.flush();
    } catch (const ClosedPipe&) {
      return status_done;
    }
    if (!output_.is_stdout()) print(fmt::format("recorded {} events\n", recorded_));
    if (missed > 0) {
      throw Failure(status_not_so, fmt::format("record: {} events are missing from the recording: {}: give it {}",
                                               format_count(missed), reasons, advice));
    }
    if (closed || numbers.empty()) {
      throw Failure(
          status_not_so,
          fmt::format("record: {}: {} events were recorded, and nobody can say whether any are "
                      "missing: see shmtool doctor",
                      closed ? "its subscription is gone" : "the bus does not answer", format_count(recorded_)));
    }
    if (options_.count > 0 && !count_reached() && !stop_requested()) {
      throw Failure(status_not_so, fmt::format("record: {} of {} events came in time: no more arrived: allow more time "
                                               "with --timeout, or see shmtool stat",
                                               recorded_, options_.count));
    }
    return status_done;
  }

  const Globals& globals_;
  const RecordOptions& options_;
  const Clock::time_point started_;
  const std::uint64_t to_unix_ns_;
  Bus bus_;
  Subscriber subscriber_;
  Output output_;
  CompactWriter compact_;
  RecordedEvent event_;
  std::uint64_t recorded_ = 0;
  std::uint64_t last_delivery_ = 0;
};

int run(const Globals& globals, const RecordOptions& options) {
  if (options.compact && options.output == "-" && ::isatty(STDOUT_FILENO) != 0) {
    throw Failure(status_usage,
                  "record: a compact recording is no text for a terminal: write it to a file with -o FILE");
  }
  catch_stop_signals();
  return Recorder(globals, options).run();
}

}  // namespace

void add_record(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "record", "Write events to a file as they are published",
      "A tap, as tail: it takes nothing from any subscription and holds up nobody. What it can't follow waits in a\n"
      "backlog of its own (--max-bytes); when that is full, its oldest events are dropped, and the end says so with "
      "exit\n"
      "status 1. The lines of ndjson are those of shmtool sub; compact is smaller, and tells a file that was cut "
      "short.\n"
      "Ends at --count, at --timeout (exit status 1 if --count was not reached), by SIGINT or SIGTERM, and when "
      "nobody\n"
      "reads its output; what was routed before is in the file. An existing file is replaced.\n\n"
      "Examples:\n  shmtool record 'orders.#' -o orders.ndjson --timeout 1m\n"
      "  shmtool record '#' -o day.rec --format compact\n"
      "  shmtool record '#' | shmtool replay - --bus copy");
  auto options = std::make_shared<RecordOptions>();
  command.add_option("PATTERN", options->patterns, "Patterns of topics")->required();
  command.add_option("-o,--output", options->output, "File to write; - is stdout (-)")->type_name("FILE");
  add_parsed(command, "--format", "ndjson|compact", "An object per line, or binary records (ndjson)",
             [options = options.get()](const std::string& text) {
               if (text != "ndjson" && text != "compact") {
                 throw std::invalid_argument("'" + text + "' is not a format: choose ndjson or compact");
               }
               options->compact = text == "compact";
             });
  command.add_option("--count", options->count, "End after this many events")
      ->check(above_zero())
      ->default_str("no limit");
  add_duration(command, "--timeout", options->timeout, "End this long after the start");
  add_parsed(command, "--from", "now|last",
             "Begin with what comes, or with the last event of each topic, of a bus that keeps them (now)",
             [options = options.get()](const std::string& text) {
               if (text != "now" && text != "last") {
                 throw std::invalid_argument("'" + text + "' is no place to begin: choose now or last");
               }
               options->from = text == "last" ? StartFrom::last_values : StartFrom::now;
             });
  add_size(command, "--max-bytes", options->max_bytes, "Bytes that may wait for the recorder (256MiB)");
  add_size(command, "--ring", options->ring_bytes,
           "Size of its ring, a power of two, four times the largest event at least (4MiB)");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
