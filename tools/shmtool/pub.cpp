// shmtool pub: publishes events, and ends when all of them are routed and counted.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/pub_input.hpp"
#include "tools/shmtool/publish_loop.hpp"
#include "tools/shmtool/recording_file.hpp"
#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {
namespace {

using Clock = PublishLoop::Clock;
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
      : options_(options), loop_(globals, publisher_options(options), options.timeout) {
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
    return loop_.run([this] { publish_all(); });
  }

 private:
  static PublisherOptions publisher_options(const PubOptions& options) {
    PublisherOptions publisher_options;
    publisher_options.name = options.name;
    publisher_options.ring_bytes = options.ring_bytes;
    return publisher_options;
  }

  void publish_all() {
    Event event = defaults_;
    if (!options_.ndjson.empty() || !options_.lines.empty()) {
      const bool objects = !options_.ndjson.empty();
      LineReader reader(objects ? options_.ndjson : options_.lines, std::max<std::uint64_t>(options_.repeat, 1));
      for (std::string line; loop_.published() < options_.count && reader.next(line);) {
        if (objects && line.find_first_not_of(" \t\r") == std::string::npos) continue;  // a blank line says nothing
        try {
          if (objects) {
            parse_event(line, defaults_, event, [&event](const std::string& name, std::string_view value) {
              parse_exact_member(name, value, event);
            });
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
    while (loop_.published() < total && publish(event, event.topic)) {
    }
  }

  // False: a signal came.
  bool publish(const Event& event, const std::string& where) {
    if (!wait_until_due()) return false;
    EventAttributes attributes;
    attributes.ttl = options_.ttl;
    attributes.delay = options_.delay;
    if (options_.sequence != 0) attributes.sequence = options_.sequence + loop_.published();
    return loop_.publish(event, attributes, where);
  }

  // With --rate the n-th event is due n / rate after the first, whatever happened to those before it.
  bool wait_until_due() {
    if (options_.rate <= 0) return true;
    if (loop_.published() == 0) first_ = Clock::now();
    const auto due = first_ + Nanoseconds(std::llround(static_cast<double>(loop_.published()) * 1e9 / options_.rate));
    return loop_.wait_until(due, "--rate leaves the next event for later");
  }

  const PubOptions& options_;
  PublishLoop loop_;
  Event defaults_;
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
