#include "tools/shmtool/bench_flow.hpp"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include <fmt/format.h>

#include "tools/common/machine.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/bench_taker.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t publish_batch = 64;
// Of events before the exchange may see them. More would save nothing: their copies are what takes the time, and a ring
// that is filled before anybody looks at it is written and read in turns, not at once.
constexpr std::uint64_t publish_batch_bytes = 64u << 10;
constexpr auto forever = std::chrono::hours(24);

void sleep_until(std::uint64_t monotonic_time_ns) {
  const timespec until{static_cast<time_t>(monotonic_time_ns / 1'000'000'000),
                       static_cast<long>(monotonic_time_ns % 1'000'000'000)};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

// Does the n-th publisher share its core with another process of the flow?
bool shares_core(const BenchOptions& options, unsigned number) {
  const int cpu = options.client_cpu(number);
  if (cpu == options.exchange_cpu()) return true;
  for (unsigned other = 0; other < options.publishers + options.takers(); ++other) {
    if (other != number && options.client_cpu(other) == cpu) return true;
  }
  return false;
}

// Who has a core to itself watches the clock. Who shares it sleeps until the event is due and is late by what it takes to
// wake up: watching, and yielding too, would keep the others of that core from running for a slice of the scheduler, which
// is milliseconds, and the figures would be those of the scheduler.
void wait_until_due(std::uint64_t due_ns, bool shared) {
  constexpr std::uint64_t watched_ns = 1'000'000;
  for (std::uint64_t now = monotonic_ns(); now < due_ns; now = monotonic_ns()) {
    if (shared) {
      sleep_until(due_ns);
    } else if (due_ns - now > watched_ns) {
      sleep_until(due_ns - watched_ns / 2);
    }
  }
}

[[noreturn]] void refuse(Outcome outcome, const char* advice) {
  throw Failure(status_refused, fmt::format("bench: can't publish: {}: {}", to_string(outcome), advice));
}

void publish_at_rate(const BenchOptions& options, Publisher& publisher, const std::string& topic, Bytes payload,
                     unsigned number, std::uint64_t count, std::uint64_t warm_up, const Schedule& schedule,
                     Histogram& lateness) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // nanoseconds; the usual 50,000 would be in every figure
  const bool shared = shares_core(options, number);
  for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
    const std::uint64_t index = schedule.index(number, sequence);
    const std::uint64_t due = schedule.due_ns(index);
    wait_until_due(due, shared);
    if (index >= warm_up) lateness.record(monotonic_ns() - due);
    const Outcome outcome = publisher.publish_wait(topic, payload, Nanoseconds(patience_ns));
    if (outcome != Outcome::ok) refuse(outcome, "try a smaller --rate");
  }
}

void publish(const BenchOptions& options, const std::string& run, unsigned number, std::uint64_t total,
             std::uint64_t warm_up, Channel& channel) {
  Bus bus = open_bench_bus(options, "bench-publisher");
  Publisher publisher = bus.publisher(
      {.name = fmt::format("{}-{}", run, number), .ring_bytes = options.ring_bytes(), .wait = options.wait});
  const std::string topic = fmt::format("bench.{}.{}", run, number);
  const std::string text(options.size, 'x');
  channel.send("ready");
  const nlohmann::json go = channel.expect(forever, "start of the benchmark");
  const std::uint64_t start = monotonic_ns();
  const std::uint64_t count = share(total, options.publishers, number);
  Histogram lateness;
  if (options.rate > 0) {
    const Schedule schedule{go.at("start"), options.rate, options.publishers};
    publish_at_rate(options, publisher, topic, as_bytes(text), number, count, warm_up, schedule, lateness);
  } else {
    publish_in_batches(publisher, {&topic, 1}, as_bytes(text), count);
  }
  channel.send({{"start", start}, {"lateness", lateness.to_json()}});
}

// Books of one subscription: its members together must have had each event of each publisher once.
void add_books(const BenchOptions& options, std::uint64_t total, const std::vector<nlohmann::json>& members,
               BenchResult& result) {
  for (unsigned publisher = 0; publisher < options.publishers; ++publisher) {
    std::uint64_t seen = 0;
    std::uint64_t sum = 0;
    for (const nlohmann::json& member : members) {
      const nlohmann::json& check = member.at("checks").at(publisher);
      seen += check.at(0).get<std::uint64_t>();
      sum += check.at(1).get<std::uint64_t>();
      result.duplicates += check.at(3).get<std::uint64_t>();
      if (members.size() == 1) result.lost += check.at(2).get<std::uint64_t>();
    }
    if (members.size() == 1) continue;
    const std::uint64_t expected = share(total, options.publishers, publisher);
    if (seen < expected) result.lost += expected - seen;
    if (seen > expected) result.duplicates += seen - expected;
    const std::uint64_t all = expected % 2 == 0 ? expected / 2 * (expected + 1) : (expected + 1) / 2 * expected;
    if (seen == expected && sum != all) {  // one at least came twice, in place of another
      ++result.lost;
      ++result.duplicates;
    }
  }
}

// A group outlives its members, and a bus that others use should not keep it.
void remove_groups(const BenchOptions& options, const std::string& run) {
  Child child = Child::start("bench-remove", [&](Channel& channel) {
    Bus bus = open_bench_bus(options, "bench-remove");
    for (unsigned i = 0; i < options.subscribers; ++i) {
      bus.remove_subscription(fmt::format("{}-{}", run, i), Pending::drop);
    }
    channel.send("done");
  });
  child.channel().expect(std::chrono::seconds(30), "removal of the groups");
}

}  // namespace

void publish_in_batches(Publisher& publisher, std::span<const std::string> topics, Bytes payload, std::uint64_t count) {
  const std::uint64_t batch =
      std::clamp<std::uint64_t>(publish_batch_bytes / std::max<std::size_t>(payload.size(), 1), 1, publish_batch);
  std::size_t turn = 0;
  const auto next = [&topics, &turn] { turn = turn + 1 == topics.size() ? 0 : turn + 1; };
  for (std::uint64_t sent = 0; sent < count;) {
    Outcome outcome = Outcome::ok;
    const std::uint64_t batch_end = std::min(count, sent + batch);
    while (sent < batch_end && (outcome = publisher.add(topics[turn], payload)) == Outcome::ok) {
      ++sent;
      next();
    }
    if (publisher.commit_batch() != Outcome::ok) throw Failure(status_refused, "bench: can't commit: see shmtool stat");
    if (outcome == Outcome::back_pressured) {
      outcome = publisher.publish_wait(topics[turn], payload, Nanoseconds(patience_ns));
      ++sent;
      next();
    }
    if (outcome != Outcome::ok) refuse(outcome, "see shmtool stat");
  }
}

BenchResult flow(const BenchOptions& options, const std::string& run, std::uint64_t count, std::uint64_t warm_up) {
  const std::uint64_t total = count + warm_up;
  Progress progress(options.takers());
  std::vector<Child> takers;
  std::vector<Child> publishers;
  for (unsigned i = 0; i < options.takers(); ++i) {
    takers.push_back(Child::start("bench-sub", [&](Channel& channel) {
      pin_to_cpu(options.client_cpu(options.publishers + i));
      Taker(options, run, i, total, warm_up, progress).run(channel);
    }));
    // One after the other: the first member of a group creates it, and hundreds at once would wait for their answers
    // longer than anybody should.
    takers.back().channel().expect(std::chrono::seconds(30), "subscriber");
  }
  for (unsigned i = 0; i < options.publishers; ++i) {
    publishers.push_back(Child::start("bench-pub", [&](Channel& channel) {
      pin_to_cpu(options.client_cpu(i));
      publish(options, run, i, total, warm_up, channel);
    }));
    publishers.back().channel().expect(std::chrono::seconds(30), "publisher");
  }
  const Schedule schedule{monotonic_ns() + 10'000'000, options.rate, options.publishers};
  progress.set_start(schedule.start_ns);
  for (Child& child : takers) child.channel().send("go");
  for (Child& child : publishers) child.channel().send({{"start", schedule.start_ns}});

  BenchResult result;
  std::uint64_t start = ~std::uint64_t{0};
  std::uint64_t end = 0;
  for (Child& child : publishers) {
    const nlohmann::json report = child.channel().expect(forever, "publisher");
    start = std::min(start, report.at("start").get<std::uint64_t>());
    result.lateness.merge(Histogram::from_json(report.at("lateness")));
  }
  for (unsigned i = 0; i < options.subscribers; ++i) {
    std::vector<nlohmann::json> members;
    for (unsigned j = 0; j < options.members; ++j) {
      members.push_back(takers[i * options.members + j].channel().expect(forever, "subscriber"));
      end = std::max(end, members.back().at("end").get<std::uint64_t>());
      result.deliveries += members.back().at("received").get<std::uint64_t>();
      result.latency.merge(Histogram::from_json(members.back().at("histogram")));
    }
    add_books(options, total, members, result);
  }
  for (Child& child : publishers) child.wait(std::chrono::seconds(10));
  for (Child& child : takers) child.wait(std::chrono::seconds(10));
  if (options.members > 1) remove_groups(options, run);
  if (options.rate > 0) {
    start = schedule.due_ns(warm_up);
    result.deliveries = result.latency.count();
  }
  result.events = count;
  result.seconds = static_cast<double>(std::max(end, start + 1) - start) / 1e9;
  return result;
}

}  // namespace ackring::tools
