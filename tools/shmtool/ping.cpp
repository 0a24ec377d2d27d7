// shmtool ping: does the bus serve?
#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include <fmt/format.h>

#include "tools/common/program.hpp"
#include "tools/common/units.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {
namespace {

int run(const Globals& globals, Nanoseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const Nanoseconds left = deadline - std::chrono::steady_clock::now();
    std::string why;
    try {
      const Bus bus = open_bus(globals, std::max<Nanoseconds>(left, std::chrono::milliseconds(1)));
      print(fmt::format("{} serves\n", bus.name()));
      return status_done;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::no_exchange && error.code() != ErrorCode::timeout) throw;
      why = error.what();
    } catch (const Failure& failure) {
      why = failure.what();
    }
    if (stop_requested()) return status_refused;
    if (std::chrono::steady_clock::now() >= deadline) throw Failure(status_refused, why);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

void add_ping(CLI::App& app, Globals& globals) {
  CLI::App& command = add_command(app, "ping", "Wait until the bus serves",
                                  "Exit status 0 as soon as its exchange answers; 3 if it does not in time.\n\n"
                                  "Example:\n  ackring-exchange --bus orders & shmtool ping --bus orders --timeout 2s");
  auto timeout = std::make_shared<Nanoseconds>(std::chrono::seconds(1));
  add_duration(command, "--timeout", *timeout, "How long to wait (1s)");
  command.callback([&globals, timeout] {
    globals.run = [&globals, timeout] {
      catch_stop_signals();
      return run(globals, *timeout);
    };
  });
}

}  // namespace ackring::tools
