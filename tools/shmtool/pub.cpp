// shmtool pub: publishes events, and ends when all of them are routed and counted.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/pub_input.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

struct PubOptions {
  std::string topic;
  std::string data;
  std::string ndjson;
  std::string lines;
  double rate = 0;
  std::uint64_t count = unlimited;
  std::uint64_t repeat = 0;  // 0: not given
  std::string name;
  std::string key;
  std::vector<std::string> headers;
  Nanoseconds ttl{0};          // 0: none
  Nanoseconds delay{0};        // 0: none
  std::uint64_t sequence = 0;  // of the first event; 0: the publisher's next
  std::uint64_t ring_bytes = limits::default_ring_bytes;
  Nanoseconds timeout{0};  // 0: none
};

class Pub {
 public:
  Pub(const Globals& globals, const PubOptions& options)
      : globals_(globals), options_(options), started_(Clock::now()), publisher_(open(globals, options)) {
    defaults_.topic = options.topic;
    defaults_.payload = options.data;
    defaults_.key = options.key;
    for (const std::string& header : options.headers) {
      const std::size_t equals = header.find('=');
      if (equals == std::string::npos || equals == 0) {
        throw Failure(status_usage, "--header " + header + ": has no name or no '=': write --header NAME=VALUE");
      }
      defaults_.headers.emplace_back(header.substr(0, equals), header.substr(equals + 1));
    }
  }

  int run() {
    try {
      publish_all();
    } catch (const Failure&) {
      // What was published before is not lost, and said so, whatever comes next.
      settle(std::chrono::seconds(5));
      report();
      throw;
    }
    const bool settled = settle(Nanoseconds::max());
    report();
    if (!settled) throw late("not all of it is routed yet");
    return status_done;
  }

 private:
  static Publisher open(const Globals& globals, const PubOptions& options) {
    PublisherOptions publisher_options;
    publisher_options.name = options.name;
    publisher_options.ring_bytes = options.ring_bytes;
    return open_bus(globals).publisher(publisher_options);
  }

  void publish_all() {
    Event event = defaults_;
    if (!options_.ndjson.empty() || !options_.lines.empty()) {
      const bool objects = !options_.ndjson.empty();
      LineReader reader(objects ? options_.ndjson : options_.lines, std::max<std::uint64_t>(options_.repeat, 1));
      for (std::string line; published_ < options_.count && reader.next(line);) {
        if (objects && line.find_first_not_of(" \t\r") == std::string::npos) continue;  // a blank line says nothing
        try {
          if (objects) {
            parse_event(line, defaults_, event);
          } else {
            event.payload = line;
          }
        } catch (const std::invalid_argument& error) {
          throw Failure(status_usage, reader.where() + ": " + error.what());
        }
        if (!publish(event, reader.where())) return;
      }
      return;
    }
    // One event: --repeat says how often, or --count, or the smaller of both.
    const std::uint64_t once = options_.count == unlimited ? 1 : options_.count;
    const std::uint64_t total = options_.repeat == 0 ? once : std::min(options_.repeat, options_.count);
    while (published_ < total && publish(event, event.topic)) {
    }
  }

  // False: a signal came. Throws Failure where this event can't be published.
  bool publish(const Event& event, const std::string& where) {
    if (!wait_until_due()) return false;
    EventAttributes attributes{event.key, event.headers.empty() ? nullptr : &event.headers};
    attributes.ttl = options_.ttl;
    attributes.delay = options_.delay;
    if (options_.sequence != 0) attributes.sequence = options_.sequence + published_;
    Outcome outcome = publisher_.publish(event.topic, as_bytes(event.payload), attributes);
    while (outcome == Outcome::back_pressured) {
      const Nanoseconds left = time_left();
      if (left <= Nanoseconds{0}) throw late("the publisher's ring is full");
      if (stop_requested()) return false;
      outcome =
          publisher_.publish_wait(event.topic, as_bytes(event.payload), std::min<Nanoseconds>(left, slice), attributes);
    }
    if (outcome != Outcome::ok) throw refused(outcome, event, where);
    ++published_;
    return !stop_requested();
  }

  // With --rate the n-th event is due n / rate after the first, whatever happened to those before it.
  bool wait_until_due() {
    if (options_.rate <= 0) return true;
    if (published_ == 0) first_ = Clock::now();
    const auto due = first_ + Nanoseconds(std::llround(static_cast<double>(published_) * 1e9 / options_.rate));
    while (Clock::now() < due) {
      if (stop_requested()) return false;
      if (time_left() <= Nanoseconds{0}) throw late("--rate leaves the next event for later");
      std::this_thread::sleep_for(std::min<Nanoseconds>({due - Clock::now(), slice, time_left()}));
    }
    return true;
  }

  bool settle(Nanoseconds most) {
    const auto deadline = most == Nanoseconds::max() ? Clock::time_point::max() : Clock::now() + most;
    while (true) {
      const Nanoseconds left = std::min<Nanoseconds>(time_left(), deadline - Clock::now());
      if (publisher_.flush(std::clamp<Nanoseconds>(left, std::chrono::milliseconds(1), slice)) == Outcome::ok)
        return true;
      if (left <= slice || stop_requested()) return false;
    }
  }

  void report() const { print(fmt::format("published {} events\n", published_)); }

  [[nodiscard]] Nanoseconds time_left() const {
    if (options_.timeout <= Nanoseconds{0}) return std::chrono::hours(24 * 365);
    return started_ + options_.timeout - Clock::now();
  }

  [[nodiscard]] Failure late(const std::string& what) const {
    std::string state = "unknown";
    try {
      state = stat_document(globals_).at("exchange").at("state").get<std::string>();
    } catch (const std::exception&) {
      // The message below does not depend on it.
    }
    const std::string when = options_.timeout > Nanoseconds{0} && time_left() <= Nanoseconds{0}
                                 ? format_duration(static_cast<double>(options_.timeout.count())) + " are over"
                                 : "stopped by a signal";
    return {status_not_so,
            fmt::format("{} after {} published events: {} (the exchange is {}): see shmtool stat, or allow more "
                        "time with --timeout",
                        when, published_, what, state)};
  }

  [[nodiscard]] Failure refused(Outcome outcome, const Event& event, const std::string& where) const {
    switch (outcome) {
      case Outcome::too_large:
        return {status_usage,
                fmt::format("{}: the event is too large: {} bytes of payload, key and headers may be {} with this ring "
                            "(a quarter of it), and a key 65,535: use a larger --ring, here and on the subscriptions",
                            where, event.payload.size(), publisher_.max_event_bytes())};
      case Outcome::invalid_topic:
        return {status_usage,
                fmt::format("{}: '{}' is not a topic: use words of [A-Za-z0-9_-] split by '.', 255 bytes at most",
                            where, event.topic)};
      case Outcome::too_many_topics:
        return {status_refused,
                fmt::format("{}: the table of topics is full: 1,048,576 are the most: use fewer topics", where)};
      case Outcome::denied:
        return {
            status_refused,
            fmt::format("publish '{}': permission: the access rules of the bus do not let uid {} publish to it: use "
                        "another topic, or have a rule added",
                        event.topic, ::geteuid())};
      default:
        return {status_refused,
                fmt::format("{}: not published: the publisher is {}: see shmtool stat", where, to_string(outcome))};
    }
  }

  static constexpr Nanoseconds slice = std::chrono::milliseconds(200);  // how long a signal may go unseen
  const Globals& globals_;
  const PubOptions& options_;
  const Clock::time_point started_;
  Publisher publisher_;
  Event defaults_;
  std::uint64_t published_ = 0;
  Clock::time_point first_;
};

int run(const Globals& globals, const PubOptions& options) {
  const bool file = !options.ndjson.empty() || !options.lines.empty();
  if (options.ndjson.empty() && options.topic.empty()) {
    throw Failure(status_usage,
                  "pub: nothing to publish: a topic is missing: write shmtool pub TOPIC [DATA], or --ndjson FILE");
  }
  if (!options.ndjson.empty() && !options.topic.empty()) {
    throw Failure(status_usage, "pub: TOPIC does not go with --ndjson: each object names its own topic: leave one out");
  }
  if (options.sequence != 0 && options.name.empty()) {
    throw Failure(status_usage, "pub: --sequence numbers the events of a named publisher: give --name, too");
  }
  if (file && !options.data.empty()) throw Failure(status_usage, "pub: DATA does not go with a file: leave one out");
  catch_stop_signals();
  return Pub(globals, options).run();
}

}  // namespace

void add_pub(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "pub", "Publish events",
      "--ndjson: one object per line with `topic`, `data`, optional `key` and `headers`. The payload is the bytes of "
      "`data`\n"
      "as they stand in the line, or the content of it if it is a string. --lines: each line is a payload.\n"
      "Ends when all is routed and counted; the last line is `published N events`.\n\n"
      "Examples:\n  shmtool pub orders.eu.created '{\"id\": 7}' --key customer-12 --header source=web\n"
      "  shmtool pub --ndjson events.ndjson --repeat 100\n  journalctl -f | shmtool pub logs.journal --lines - --rate "
      "1000");
  auto options = std::make_shared<PubOptions>();
  command.add_option("TOPIC", options->topic, "Topic, such as orders.eu.created");
  command.add_option("DATA", options->data, "Payload; without it: an empty event");
  auto* ndjson =
      command.add_option("--ndjson", options->ndjson, "File of objects, one per line; - is stdin")->type_name("FILE");
  command.add_option("--lines", options->lines, "File of payloads, one per line; - is stdin")
      ->type_name("FILE")
      ->excludes(ndjson);
  command.add_option("--rate", options->rate, "Events per second")->check(above_zero());
  command.add_option("--count", options->count, "Publish this many events at most; with DATA: as many times")
      ->check(above_zero())
      ->default_str("all");
  command.add_option("--repeat", options->repeat, "Publish the whole input this many times")
      ->check(above_zero())
      ->default_str("1");
  command.add_option("--name", options->name, "Name of the publisher; it keeps its sequence over restarts")
      ->type_name("PUB");
  command.add_option("--key", options->key, "Key of the events (unless an object has its own)");
  command.add_option("--header", options->headers, "NAME=VALUE; may be given several times")
      ->allow_extra_args(false)
      ->type_name("K=V");
  add_duration(command, "--ttl", options->ttl, "Events that reach no member in this time expire (never)");
  add_duration(command, "--delay", options->delay, "Deliver no sooner than this long after publishing (at once)");
  // Not an option of CLI11's own: that takes what is beyond 64 bits for the largest number.
  add_parsed(command, "--sequence", "N",
             "Number of the first event; what the exchange has had of publisher --name already is ignored there, and "
             "counted as duplicates (the publisher's next)",
             [options](const std::string& text) {
               options->sequence = parse_number<std::uint64_t>(text);
               if (options->sequence == 0) throw std::invalid_argument("'0' is not a number above 0");
             });
  add_size(command, "--ring", options->ring_bytes, "Size of the publisher's ring, a power of two (4MiB)");
  add_duration(command, "--timeout", options->timeout, "Give up after this long, exit status 1");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
