// Reloader: at SIGHUP, reads the files again and has the exchange go on with what can change while it serves.
//
// Thread rules: a thread of its own waits for the signal and reads files, so that the exchange does not wait for a disk; the
// exchange's thread carries out the rest.
#pragma once

#include <atomic>
#include <thread>

#include "lib/exchange/host.hpp"
#include "tools/exchange/config_file.hpp"
#include "tools/exchange/log.hpp"
#include "tools/exchange/settings.hpp"

namespace ackring::tools {

/// From now on SIGHUP, of this thread and those that it makes, waits for a Reloader.
void hold_reload_signal();

class Reloader {
 public:
  /// SIGHUP is held. `running` are the settings that the exchange was started with.
  Reloader(exchange::Host& host, Log& log, const Arguments& arguments, Settings running);
  ~Reloader();
  Reloader(const Reloader&) = delete;
  Reloader& operator=(const Reloader&) = delete;

 private:
  void run();
  void reload();
  void apply(const Settings& next, const ConfigFile& file, const control::AccessRules& rules);
  void tell_what_takes_a_restart(const Settings& next);
  void tell(exchange::Notice::Level level, const char* event, const std::string& text);

  exchange::Host& host_;
  Log& log_;
  const Arguments& arguments_;
  Settings running_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace ackring::tools
