// The publisher and the subscribers of the demo.
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include <fmt/format.h>

#include "ackring/bus.hpp"
#include "lib/control/topic_pattern.hpp"
#include "tools/common/histogram.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/demo.hpp"

namespace ackring::tools {
namespace {

constexpr std::uint64_t shown_lines = 4;

Bus open_demo_bus(const DemoPlan& plan, const std::string& client_name) {
  BusOptions options;
  options.directory = plan.directory;
  options.exchange = ExchangeMode::require;
  options.client_name = client_name;
  return Bus::open(plan.bus, options);
}

std::string shortened(std::string_view text, std::size_t most) {
  std::string line(text.substr(0, most));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '.';
  }
  return text.size() > most ? line + "..." : line;
}

bool told_to_end(const Channel& channel) {
  pollfd state{channel.fd(), POLLIN, 0};
  return ::poll(&state, 1, 0) > 0;
}

std::string word_of(const std::string& topic, std::size_t index) {
  std::size_t start = 0;
  for (; index > 0; --index) {
    start = topic.find('.', start);
    if (start == std::string::npos) return {};
    ++start;
  }
  return topic.substr(start, topic.find('.', start) - start);
}

}  // namespace

std::vector<DemoSubscription> choose_subscriptions(const DemoInput& input, bool packages) {
  if (packages && input.events.front().topic.starts_with("dpkg.installed.")) {
    return {{"everything", {"dpkg.#"}},
            {"libraries", {"dpkg.installed.#"}},
            {"base", {"dpkg.*.dpkg", "dpkg.*.bash", "dpkg.*.libc6_*"}}};
  }
  if (packages)
    return {
        {"everything", {"dpkg.#"}}, {"installs", {"dpkg.install.*", "dpkg.upgrade.*"}}, {"states", {"dpkg.status.*"}}};
  // Any file: all of it, what begins like its first topic, and the most frequent last word.
  std::map<std::string, std::size_t> last_words;
  for (const Event& event : input.events) ++last_words[event.topic.substr(event.topic.rfind('.') + 1)];
  const auto common = std::max_element(last_words.begin(), last_words.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string first = word_of(input.events.front().topic, 0);
  const std::string second = word_of(input.events.front().topic, 1);
  return {{"everything", {"#"}},
          {"like-the-first", {first + (second.empty() ? "" : "." + second) + ".#"}},
          {"all-" + common->first, {"#." + common->first}}};
}

void demo_publisher(const DemoPlan& plan, Channel& channel) {
  Bus bus = open_demo_bus(plan, "demo-publisher");
  Publisher publisher = bus.publisher({.name = "package-log"});
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t published = 0;
  for (const Event& event : plan.input.events) {
    if (published < plan.paced) {
      const double seconds = plan.paced_seconds * static_cast<double>(published) / static_cast<double>(plan.paced);
      std::this_thread::sleep_until(start + Nanoseconds(std::llround(seconds * 1e9)));
    }
    const EventAttributes attributes{event.key, event.headers.empty() ? nullptr : &event.headers};
    const Outcome outcome =
        publisher.publish_wait(event.topic, as_bytes(event.payload), std::chrono::seconds(5), attributes);
    if (outcome != Outcome::ok) {
      throw Failure(status_refused, fmt::format("{}: event {} ({}) was not published: {}: see shmtool pub --help",
                                                plan.input.source, published + 1, event.topic, to_string(outcome)));
    }
    ++published;
  }
  if (publisher.flush(std::chrono::seconds(5)) != Outcome::ok) {
    throw Failure(status_refused, "demo: the exchange did not route everything in 5 s: is the machine overloaded?");
  }
  channel.send({{"published", published}});
}

void demo_subscriber(const DemoPlan& plan, const DemoSubscription& subscription, Channel& channel) {
  Bus bus = open_demo_bus(plan, "demo-" + subscription.name);
  SubscriptionOptions options;
  options.name = subscription.name;
  options.patterns = subscription.patterns;
  Subscriber subscriber = bus.subscribe(options);
  channel.send("ready");

  // What must come, in this order: the events of the plan that match.
  std::vector<std::uint64_t> expected;
  for (std::size_t i = 0; i < plan.input.events.size(); ++i) {
    const std::string& topic = plan.input.events[i].topic;
    if (std::any_of(subscription.patterns.begin(), subscription.patterns.end(),
                    [&topic](const std::string& pattern) { return control::matches(pattern, topic); })) {
      expected.push_back(i + 1);
    }
  }
  Histogram paced;
  Histogram burst;
  std::uint64_t acked = 0;
  std::uint64_t wrong = 0;
  while (true) {
    auto delivery = subscriber.take(std::chrono::milliseconds(50));
    if (!delivery) {
      if (told_to_end(channel)) break;
      continue;
    }
    const std::uint64_t latency_ns = monotonic_ns() - delivery->published_ns();
    const std::uint64_t sequence = delivery->sequence();
    if (acked >= expected.size() || sequence != expected[acked] || delivery->attempt() != 1 ||
        delivery->text() != plan.input.events[sequence - 1].payload ||
        delivery->topic() != plan.input.events[sequence - 1].topic) {
      ++wrong;
    }
    (sequence <= plan.paced ? paced : burst).record(latency_ns);
    if (acked < shown_lines) {
      channel.send(
          {{"line", fmt::format("  {:<16} <- #{:<5} {:<40} {:>9}  {}", subscription.name, sequence,
                                shortened(delivery->topic(), 40), format_duration(static_cast<double>(latency_ns)),
                                shortened(delivery->text(), 44))}});
    }
    if (delivery->ack() == Outcome::ok) ++acked;
  }
  if (acked != expected.size()) ++wrong;
  channel.send({{"acked", acked}, {"wrong", wrong}, {"paced", paced.to_json()}, {"burst", burst.to_json()}});
}

}  // namespace ackring::tools
