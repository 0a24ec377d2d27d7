#include "tools/exchange/reload.hpp"

#include <csignal>
#include <future>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/exchange/declared.hpp"
#include "tools/exchange/service_manager.hpp"

namespace ackring::tools {
namespace {

using exchange::Notice;

sigset_t reload_signal() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGHUP);
  return set;
}

}  // namespace

void hold_reload_signal() {
  const sigset_t set = reload_signal();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Reloader::Reloader(exchange::Host& host, Log& log, const Arguments& arguments, Settings running)
    : host_(host), log_(log), arguments_(arguments), running_(std::move(running)), thread_([this] {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, nullptr);  // the program's other signals are for its first thread
        run();
      }) {}

Reloader::~Reloader() {
  stopping_.store(true, std::memory_order_relaxed);  // relaxed: the signal comes after it
  ::pthread_kill(thread_.native_handle(), SIGHUP);
  thread_.join();
}

void Reloader::run() {
  const sigset_t set = reload_signal();
  for (;;) {
    int signal = 0;
    ::sigwait(&set, &signal);
    if (stopping_.load(std::memory_order_relaxed)) return;  // relaxed: as above
    notify_reloading();
    reload();
    notify_service_manager("READY=1\n");
  }
}

void Reloader::reload() {
  try {
    const ConfigFile file = arguments_.config.empty() ? ConfigFile{} : read_config_file(arguments_.config);
    if (!file.errors.empty()) {
      for (const std::string& error : file.errors) tell(Notice::Level::error, "config.error", error);
      tell(Notice::Level::error, "config.refused", arguments_.config + ": it has errors: all stays as it was");
      return;
    }
    const Settings next = settings_of(arguments_, file);
    const control::AccessRules rules = access_rules_of(next);
    log_.change(next.log);
    apply(next, file, rules);
  } catch (const Failure& failure) {
    tell(Notice::Level::error, "config.refused", fmt::format("{}: all stays as it was", failure.what()));
  }
}

void Reloader::apply(const Settings& next, const ConfigFile& file, const control::AccessRules& rules) {
  const auto done = std::make_shared<std::promise<void>>();
  std::future<void> through = done->get_future();
  host_.call([this, done, rules, subscriptions = file.subscriptions] {
    host_.core().set_access(rules);
    declare_subscriptions(host_.core(), subscriptions, false, [this](const Notice& notice) { log_.tell(notice); });
    done->set_value();
  });
  // An exchange that is about to end does not get there.
  while (through.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (stopping_.load(std::memory_order_relaxed)) return;  // relaxed: it is looked at again
  }
  tell_what_takes_a_restart(next);
  tell(Notice::Level::info, "config.reloaded",
       fmt::format("read again: {}; level {}, {} subscriptions are declared",
                   arguments_.config.empty() ? "no file of settings" : arguments_.config,
                   spdlog::level::to_string_view(next.log.level), file.subscriptions.size()));
}

void Reloader::tell_what_takes_a_restart(const Settings& next) {
  const auto compare = [&](const char* key, bool same) {
    if (same) return;
    tell(Notice::Level::warning, "config.restart",
         fmt::format("{}: key '{}': it has another value now: that takes a restart", arguments_.config, key));
  };
  compare("bus", next.bus == running_.bus);
  compare("dir", next.directory == running_.directory);
  compare("cpu", next.cpus == running_.cpus);
  compare("shards", next.shards == running_.shards);
  compare("wait", next.wait == running_.wait);
  compare("socket_group", next.socket_group == running_.socket_group);
  compare("socket_mode", next.socket_mode == running_.socket_mode);
  compare("metrics", next.metrics == running_.metrics);
}

void Reloader::tell(Notice::Level level, const char* event, const std::string& text) {
  log_.tell({level, event, text, {}});
}

}  // namespace ackring::tools
