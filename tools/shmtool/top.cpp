// shmtool top: a live screen of a bus.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <utility>
#include <vector>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/top_lines.hpp"
#include "tools/shmtool/top_looker.hpp"
#include "tools/shmtool/top_screen.hpp"

namespace ackring::tools {
namespace {

using Clock = std::chrono::steady_clock;

struct TopOptions {
  Nanoseconds interval = std::chrono::seconds(1);
  std::string sort = "lag";
  std::string filter;
};

// Signals that end the program or change the size come only while it waits: between a look at what they have done and the
// wait, they would be seen a look too late. Threads that start later have none of them.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t held;
    ::sigemptyset(&held);
    for (const int number : {SIGINT, SIGTERM, SIGWINCH}) ::sigaddset(&held, number);
    ::pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HeldSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  [[nodiscard]] const sigset_t& before() const noexcept { return before_; }

 private:
  sigset_t before_{};
};

std::vector<std::string> sort_keys() {
  std::vector<std::string> keys;
  for (const auto& column : subscription_columns()) keys.emplace_back(column.shape.key);
  return keys;
}

// False: the terminal has gone.
bool wait_for(int looker, const HeldSignals& signals, bool timed, Nanoseconds left) {
  pollfd waits[] = {{STDIN_FILENO, POLLIN, 0}, {looker, POLLIN, 0}};
  const timespec timeout{static_cast<time_t>(left.count() / 1'000'000'000),
                         static_cast<long>(left.count() % 1'000'000'000)};
  if (::ppoll(waits, 2, timed ? &timeout : nullptr, &signals.before()) <= 0) return true;  // a signal, or it is time
  return (waits[0].revents & (POLLHUP | POLLERR | POLLNVAL)) == 0;
}

void take_answer(TopLooker::Answer answer, TopLook& look, TopView& view) {
  if (answer.look) look = std::move(*answer.look);
  if (!answer.error.empty()) look = stale(std::move(look), answer.error);
  if (answer.options.is_null()) return;
  view.options_of = answer.options_of;
  view.options = std::move(answer.options);
}

void run_screen(TopLooker& looker, TopView& view, const HeldSignals& signals) {
  TopScreen screen;
  TopLook look = looker.first();
  auto looked = Clock::now();
  std::string options_asked;  // for the detail that is open
  for (bool changed = true; !stop_requested() && !view.quit;) {
    if (auto answer = looker.take()) {
      take_answer(std::move(*answer), look, view);
      changed = true;
    }
    const Nanoseconds left = view.interval - (Clock::now() - looked);
    const bool due = !view.paused && left <= Nanoseconds{0};
    if (view.detail_of.empty()) options_asked.clear();
    if (!looker.busy() && (due || options_asked != view.detail_of)) {
      if (due) looked = Clock::now();  // after a look that took longer than the interval, the next one is not hurried
      options_asked = view.detail_of;
      looker.ask({due, view.detail_of});
    }
    if (std::exchange(changed, false)) screen.show(top_lines(look, view, screen.size(), screen.charset()));
    const bool timed = !view.paused && !looker.busy();
    const Nanoseconds wait = view.interval - (Clock::now() - looked);
    if (!wait_for(looker.fd(), signals, timed, std::max(wait, Nanoseconds{0}))) return;
    while (auto key = screen.key()) {
      press(view, *key, look);
      changed = true;
    }
  }
}

int run(const Globals& globals, const TopOptions& options) {
  TopView view;
  view.interval = options.interval;
  view.filter = options.filter;
  const std::vector<std::string> keys = sort_keys();
  view.of_subscriptions.sort =
      static_cast<std::size_t>(std::find(keys.begin(), keys.end(), options.sort) - keys.begin());
  TopScreen::need_terminal();
  catch_stop_signals();  // before ncurses, which leaves handlers that are there alone
  const HeldSignals signals;
  TopLooker looker(globals);
  run_screen(looker, view, signals);
  return status_done;
}

}  // namespace

void add_top(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(
      app, "top", "A live screen of a bus: rates, queues, breakers, members, latencies",
      std::string(
          "Goes on where the exchange ends: then it shows what the files say, until one starts.\n"
          "NO_COLOR=1 leaves colours out; bars are ASCII where the locale is not UTF-8. The screen has at least "
          "40x5.\n\nKeys:\n") +
          top_keys +
          "\nExamples:\n  shmtool top --bus orders\n  shmtool top --sort oldest --filter billing --interval 500ms");
  auto options = std::make_shared<TopOptions>();
  add_parsed(command, "--interval", "DURATION", "Time between two looks (1s)",
             [options = options.get()](const auto& text) {
               options->interval = parse_duration(text);
               if (options->interval < shortest_interval)
                 throw std::invalid_argument("less than 100ms between two looks: write 1s or so");
             });
  command.add_option("--sort", options->sort, "The column that decides the order")
      ->check(CLI::IsMember(sort_keys()))
      ->type_name("COLUMN")
      ->capture_default_str();
  command.add_option("--filter", options->filter, "Only subscriptions with this in their name or patterns")
      ->type_name("TEXT");
  command.callback([&globals, options] { globals.run = [&globals, options] { return run(globals, *options); }; });
}

}  // namespace ackring::tools
