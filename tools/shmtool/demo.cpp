// shmtool demo: a real exchange process, one publisher process, three subscriber processes, and the books at the end.
#include "tools/shmtool/demo.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tools/common/histogram.hpp"
#include "tools/common/program.hpp"
#include "tools/common/table.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto patience = std::chrono::seconds(5);

// Beside shmtool: in its own directory (installed, and built by meson), or in the directory next to it.
std::string exchange_program() {
  std::error_code error;
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::filesystem::path& path :
       {here / "ackring-exchange", here.parent_path() / "exchange" / "ackring-exchange"}) {
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  throw Failure(status_refused,
                "ackring-exchange: not found beside shmtool in " + here.string() + ": build or install it too");
}

std::string wait_for_ready(const Child& exchange) {
  std::string line;
  const auto deadline = Clock::now() + patience;
  while (Clock::now() < deadline && !stop_requested()) {
    pollfd state{exchange.output_fd(), POLLIN, 0};
    if (::poll(&state, 1, 50) <= 0) continue;
    char chunk[512];
    const ssize_t bytes = ::read(exchange.output_fd(), chunk, sizeof chunk);
    if (bytes <= 0) break;
    line.append(chunk, static_cast<std::size_t>(bytes));
    if (line.find('\n') != std::string::npos) return line.substr(0, line.find('\n'));
  }
  throw Failure(status_refused, "demo: ackring-exchange did not get ready: see its message above");
}

class Demo {
 public:
  explicit Demo(DemoInput input, bool packages) : directory_("demo") {
    plan_.directory = directory_.path();
    plan_.subscriptions = choose_subscriptions(input, packages);
    plan_.input = std::move(input);
    // Some come one by one, so that the latency of a single event shows; the rest shows what a burst does.
    plan_.paced = std::min<std::uint64_t>(plan_.input.events.size() / 2, 1000);
    plan_.paced_seconds = 2;
  }

  int run() {
    print(fmt::format("{} events from {}\n\n", format_count(plan_.input.events.size()), plan_.input.source));
    const auto started = Clock::now();
    start_processes();
    const std::uint64_t published = follow();
    const auto published_in = std::chrono::duration<double>(Clock::now() - started).count();
    const nlohmann::json document = settled_document();
    const bool balanced = report(document, published, published_in);
    for (Child& child : children_) child.stop();
    exchange_->stop();
    if (balanced) return status_done;
    if (stop_requested()) throw Failure(status_not_so, "demo: stopped by a signal: start it again");
    throw Failure(status_not_so, "demo: the books do not balance: the tables above show where: please report it");
  }

 private:
  void start_processes() {
    exchange_.emplace(
        Child::execute({exchange_program(), "--bus", plan_.bus, "--dir", plan_.directory, "--log-level", "warn"}));
    print(fmt::format("  exchange         pid {:<8} {}\n", exchange_->pid(), wait_for_ready(*exchange_)));
    for (const DemoSubscription& subscription : plan_.subscriptions) {
      children_.push_back(
          Child::start("demo-sub", [&](Channel& channel) { demo_subscriber(plan_, subscription, channel); }));
      children_.back().channel().expect(patience, "subscriber");
      print(fmt::format("  {:<16} pid {:<8} {}\n", subscription.name, children_.back().pid(),
                        fmt::join(subscription.patterns, " ")));
    }
    children_.push_back(Child::start("demo-pub", [&](Channel& channel) { demo_publisher(plan_, channel); }));
    print(fmt::format(
        "  publisher        pid {}\n\nfirst events, as their subscribers take them (latency: publish to take):\n",
        children_.back().pid()));
  }

  // Shows what subscribers send until the publisher is done.
  std::uint64_t follow() {
    const auto deadline =
        Clock::now() + std::chrono::milliseconds(std::llround(plan_.paced_seconds * 1e3)) + 2 * patience;
    while (Clock::now() < deadline) {
      for (std::size_t i = 0; i + 1 < children_.size(); ++i) show_lines(children_[i].channel());
      if (const auto message = children_.back().channel().receive(std::chrono::milliseconds(5))) {
        return message->at("published").get<std::uint64_t>();
      }
    }
    throw Failure(status_refused, "demo: publishing took too long: is the machine overloaded?");
  }

  static void show_lines(Channel& channel) {
    while (const auto message = channel.receive(Nanoseconds{0})) print(message->at("line").get<std::string>() + "\n");
  }

  // The document once everything that was matched is acked; after some seconds as it is.
  [[nodiscard]] nlohmann::json settled_document() {
    Globals globals;
    globals.bus = plan_.bus;
    globals.directory = plan_.directory;
    const auto deadline = Clock::now() + patience;
    while (true) {
      nlohmann::json document = stat_document(globals);
      const auto& subscriptions = document.at("subscriptions");
      const bool settled = std::all_of(subscriptions.begin(), subscriptions.end(), [](const auto& subscription) {
        return subscription.at("acked") == subscription.at("matched");
      });
      if (settled || stop_requested() || Clock::now() >= deadline) return document;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  bool report(const nlohmann::json& document, std::uint64_t published, double seconds) {
    print(fmt::format("\npublished {} events in {:.2f} s ({} one by one, the rest as one burst)\n\n",
                      format_count(published), seconds, format_count(plan_.paced)));
    Table books({"SUBSCRIPTION", ">MATCHED", ">DELIVERED", ">ACKED", "", ""});
    Table latencies({"LATENCY", "", ">EVENTS", ">P50", ">P90", ">P99", ">P99.9", ">MAX"});
    bool balanced = published == plan_.input.events.size();
    for (std::size_t i = 0; i < plan_.subscriptions.size(); ++i) {
      const std::string& name = plan_.subscriptions[i].name;
      Channel& channel = children_[i].channel();
      channel.send("end");
      nlohmann::json result = channel.expect(patience, "subscriber");
      while (result.contains("line")) result = channel.expect(patience, "subscriber");
      const auto found = std::find_if(document.at("subscriptions").begin(), document.at("subscriptions").end(),
                                      [&name](const auto& subscription) { return subscription.at("name") == name; });
      if (found == document.at("subscriptions").end()) {
        balanced = false;
        continue;
      }
      const auto count = [&found](const char* key) { return found->at(key).template get<std::uint64_t>(); };
      const bool right =
          count("matched") == count("acked") && result.at("acked") == count("acked") && result.at("wrong") == 0;
      balanced = balanced && right;
      books.add({name, format_count(count("matched")), format_count(count("delivered")), format_count(count("acked")),
                 right ? "all in order, once, byte for byte" : "WRONG", ""});
      add_latencies(latencies, name, "one by one", Histogram::from_json(result.at("paced")));
      add_latencies(latencies, name, "burst", Histogram::from_json(result.at("burst")));
    }
    print(books.text() + "\n" + latencies.text() + "\nshmtool stat:\n\n" + stat_text(document));
    return balanced;
  }

  static void add_latencies(Table& table, const std::string& name, const char* kind, const Histogram& histogram) {
    if (histogram.count() == 0) return;
    const auto at = [&histogram](double percent) {
      return format_duration(static_cast<double>(histogram.percentile(percent)));
    };
    table.add({name, kind, format_count(histogram.count()), at(50), at(90), at(99), at(99.9), at(100)});
  }

  TemporaryDirectory directory_;
  DemoPlan plan_;
  std::optional<Child> exchange_;  // ends after the others
  std::vector<Child> children_;    // the subscribers, then the publisher
};

}  // namespace

void add_demo(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(app, "demo", "Real events through an exchange process to three subscriber processes",
                                  "Input: the lines of /var/log/dpkg.log as `dpkg.<action>.<package>` (where it is "
                                  "missing: the packages that dpkg-query\n"
                                  "lists), or any file of objects with `topic` and `data`. Exit status 0 only if every "
                                  "event that matched was acked.\n\n"
                                  "Example:\n  shmtool demo --ndjson events.ndjson");
  auto path = std::make_shared<std::string>();
  command.add_option("--ndjson", *path, "Events from this file instead")->type_name("FILE");
  command.callback([&globals, path] {
    globals.run = [path] {
      catch_stop_signals();
      return Demo(path->empty() ? read_packages() : read_ndjson(*path), path->empty()).run();
    };
  });
}

}  // namespace ackring::tools
