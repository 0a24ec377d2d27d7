// Every system call that a Host makes fails once with each error that it may fail with: at its start (lock, listening socket,
// epoll), in its loop (accept, waits, requests, bells) and at its stop. Who makes it gets an Error with object and errno, and a
// Host when he asks again; nothing gets out of run(); clients get what they want, those that asked just then when they ask
// again; the books are exact, and no file, no descriptor and no mapping stays.
//
// ACKRING_CALL=EMFILE:12 plays one failure; ACKRING_DEEP=1 all of them, and not every fifth.
#include <doctest/doctest.h>

#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "ackring/ackring.hpp"
#include "lib/exchange/host.hpp"
#include "tests/faults/served_bus.hpp"

using namespace ackring;
using namespace ackring::test;
using namespace std::chrono_literals;

namespace {

// A Host on a thread of its own, whose calls go by `plan`; made again where that was refused.
class ArmedHost {
 public:
  ArmedHost(const std::string& folder, CallPlan& plan) : thread_([this, folder, &plan] { serve(folder, plan); }) {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, 20s, [this] { return host_ != nullptr || given_up_; }));
    REQUIRE(host_ != nullptr);
  }
  ~ArmedHost() {
    {
      const std::lock_guard lock(mutex_);
      if (host_ != nullptr) host_->stop();
    }
    thread_.join();
  }
  ArmedHost(const ArmedHost&) = delete;
  ArmedHost& operator=(const ArmedHost&) = delete;

  /// Why it was not made at first, and what got out of run().
  std::vector<Error> refused;
  std::vector<std::string> escaped;

 private:
  void serve(const std::string& folder, CallPlan& plan) {
    const Armed armed(plan);
    std::unique_ptr<exchange::Host> made;
    for (int tries = 0; tries < 3 && !made; ++tries) {
      try {
        made = std::make_unique<exchange::Host>(std::make_shared<shm::FileDirectory>(folder + "/b", true), "b");
      } catch (const Error& error) {
        refused.push_back(error);
      }
    }
    {
      const std::lock_guard lock(mutex_);
      host_ = made.get();
      given_up_ = !made;
    }
    changed_.notify_all();
    if (!made) return;
    try {
      made->run();
    } catch (const std::exception& error) {
      escaped.emplace_back(error.what());
    }
    const std::lock_guard lock(mutex_);
    host_ = nullptr;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  exchange::Host* host_ = nullptr;
  bool given_up_ = false;
  std::thread thread_;
};

// Asks until it is answered; only the injected failure is an excuse.
template <class Ask>
auto insist(CallPlan& plan, Ask ask) {
  for (int tries = 0;; ++tries) {
    try {
      return ask();
    } catch (const Error& error) {
      INFO(error.what());
      REQUIRE(tries < 3);
      CHECK(plan.failed.load(std::memory_order_relaxed));
      CHECK(error.system_errno() == plan.error);
      CHECK(!error.object().empty());
      CHECK(!error.why().empty());
    }
  }
}

BusOptions options_of(const BusFolder& folder) {
  BusOptions options;
  options.directory = folder.path;
  options.exchange = ExchangeMode::require;
  options.timeout = 20s;
  return options;
}

// A client that comes, publishes, takes, acks, asks and leaves.
void visit(const BusFolder& folder, CallPlan& plan, std::uint64_t& sequence) {
  Bus bus = insist(plan, [&] { return Bus::open("b", options_of(folder)); });
  SubscriptionOptions wanted;
  wanted.name = "s";
  wanted.patterns = {"#"};
  Subscriber subscriber = insist(plan, [&] { return bus.subscribe(wanted); });
  PublisherOptions named;
  named.name = "one";
  Publisher publisher = insist(plan, [&] { return bus.publisher(named); });
  for (int i = 0; i < 4; ++i) {
    REQUIRE(publisher.publish("a", as_bytes("payload")) == Outcome::ok);
    std::optional<Delivery> delivery = subscriber.take(20s);
    REQUIRE(delivery);
    CHECK(delivery->sequence() == ++sequence);
    CHECK(delivery->attempt() == 1);
    CHECK(delivery->ack() == Outcome::ok);
  }
  CHECK(publisher.flush(20s) == Outcome::ok);
  CHECK(subscriber.flush(20s) == Outcome::ok);
  const auto stat = nlohmann::ordered_json::parse(insist(plan, [&] { return bus.stat_json(); }));
  check_books(stat);
  CHECK(row_of(stat, "s")["acked"] == sequence);
  CHECK(stat["publishers"].size() == 1);
}

bool mentions(const std::multiset<std::string>& files, const std::string& part) {
  return std::any_of(files.begin(), files.end(),
                     [&part](const std::string& file) { return file.find(part) != std::string::npos; });
}

std::multiset<std::string> live(CallPlan& plan) {
  const BusFolder folder;
  std::uint64_t sequence = 0;
  for (int life = 0; life < 2; ++life) {
    ArmedHost host(folder.path, plan);
    CHECK(host.refused.size() <= 1);
    for (const Error& error : host.refused) {
      INFO(error.what());
      CHECK(plan.failed.load(std::memory_order_relaxed));
      CHECK(error.system_errno() == plan.error);
      CHECK(!error.object().empty());
    }
    for (int i = 0; i < 2; ++i) visit(folder, plan, sequence);
    // Those that have left are seen to have left, and what they had goes.
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (std::string_view(plan.call.load(std::memory_order_relaxed)) != "unlinkat" &&
           mentions(folder.kinds(), "client.")) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      std::this_thread::yield();
    }
    CHECK(host.escaped.empty());
  }
  // What could not be removed goes with the next start.
  CallPlan none;
  {
    const ArmedHost host(folder.path, none);
    CHECK(host.refused.empty());
    visit(folder, none, sequence);
  }
  { const ArmedHost host(folder.path, none); }
  for (const exchange::Finding& finding : exchange::examine(shm::FileDirectory(folder.path + "/b", false)).findings) {
    INFO(finding.file, ": ", finding.text);
    CHECK(finding.gravity != exchange::Gravity::violation);
  }
  return folder.kinds();
}

}  // namespace

TEST_CASE("every system call of a Host fails once with each error: at its start, in its loop and at its stop") {
  CallPlan none;
  const auto sound = live(none);
  CHECK(!mentions(sound, "client."));
  CHECK(!mentions(sound, ".tmp"));
  CHECK(!mentions(sound, ".new"));
  const std::size_t descriptors = open_descriptors();
  const char* only = std::getenv("ACKRING_CALL");
  const std::uint64_t stride = std::getenv("ACKRING_DEEP") != nullptr || only != nullptr ? 1 : 5;
  std::uint64_t played = 0;
  std::map<std::string, std::uint64_t> calls;
  for (const int error : injected_errors()) {
    const std::string name = error_name(error);
    CallPlan count;
    count.error = error;
    (void)live(count);
    const std::uint64_t positions = count.positions.load(std::memory_order_relaxed);
    REQUIRE(positions > 0);
    const std::uint64_t step = positions < 20 ? 1 : stride;
    for (std::uint64_t n = played % step; n < positions; n += step) {
      if (only != nullptr && name + ":" + std::to_string(n) != only) continue;
      CAPTURE(name);
      CAPTURE(n);
      CallPlan plan;
      plan.error = error;
      plan.fail_at = n;
      const auto files = live(plan);
      INFO("in ", plan.call.load(std::memory_order_relaxed));
      CHECK(files == sound);
      CHECK(open_descriptors() == descriptors);
      CHECK(mapped_files() == 0);
      ++calls[name + " " + plan.call.load(std::memory_order_relaxed)];
      ++played;
    }
    std::printf("%s: %llu positions\n", name.c_str(), static_cast<unsigned long long>(positions));
  }
  for (const auto& [call, count] : calls) {
    std::printf("  %-28s %5llu\n", call.c_str(), static_cast<unsigned long long>(count));
  }
  std::printf("failures of a host's calls: %llu\n", static_cast<unsigned long long>(played));
}
