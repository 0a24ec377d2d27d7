// How commands get at a bus: through its exchange, or, where that is dead or stalled, from shared memory alone.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <thread>

#include "lib/client/dead_letter_text.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/host.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/segment.hpp"
#include "tools/common/program.hpp"
#include "tools/shmtool/commands.hpp"

namespace ackring::tools {

CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& footer) {
  CLI::App* command = app.add_subcommand(name, description);
  command->fallthrough();
  command->footer(footer);
  return *command;
}

Bus open_bus(const Globals& globals, Nanoseconds timeout) {
  BusOptions options;
  options.directory = globals.directory;
  options.exchange = ExchangeMode::require;
  options.client_name = "shmtool";
  options.timeout = timeout;
  try {
    return Bus::open(globals.bus, options);
  } catch (const Error& error) {
    // A bus that does not exist has no exchange either; "not found" is for what is asked of a bus.
    if (error.code() == ErrorCode::not_found) throw Failure(status_refused, error.what());
    throw;
  }
}

namespace {

[[noreturn]] void throw_no_bus(const Globals& globals) {
  throw Failure(status_refused, "bus '" + globals.bus + "': there is no such bus in " + globals.directory +
                                    ": start ackring-exchange --bus " + globals.bus + ", or see shmtool ls");
}

// How long to look again at a bus whose exchange comes and goes under the look; then what was seen last has to do.
constexpr std::chrono::seconds looks_end_after{3};

// What changes when an exchange has begun to serve, or goes on after it stood still. Files that were read between two
// equal ones are of one moment.
struct Sign {
  std::string owner;
  std::uint64_t generation = 0;
  std::uint64_t tick_ns = 0;
  bool starting = false;  // an exchange has the bus, and is not done with its recovery
  bool operator==(const Sign&) const = default;
};

Sign sign_of(const shm::Directory& directory) {
  const shm::Segment segment =
      shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  const auto* page = segment.as<const shm::ExchangeSegment>();
  Sign sign;
  const bool served = exchange::is_served(directory);
  if (served) sign.owner = directory.read_file("exchange.lock");
  // relaxed: all of these are notices; a look that is late by one sees them the next time
  sign.generation = page->generation.load(std::memory_order_relaxed);
  sign.tick_ns = page->tick_ns.load(std::memory_order_relaxed);
  sign.starting = served && std::strtoull(sign.owner.c_str(), nullptr, 10) != page->pid.load(std::memory_order_relaxed);
  return sign;
}

// "running" where the exchange is to be asked: it is alive, or nobody but it can tell.
std::string state_of(const Globals& globals) {
  try {
    return exchange::exchange_state(shm::FileDirectory(globals.directory + "/" + globals.bus, false), globals.bus);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::not_found) throw_no_bus(globals);
    return "running";
  }
}

}  // namespace

nlohmann::json stat_document(const Globals& globals) {
  const std::string path = globals.directory + "/" + globals.bus;
  // All files of a large bus take as long to read as the exchange takes to answer: only where it does not.
  const auto read_files = [&]() -> nlohmann::json {
    return exchange::stat_document(shm::FileDirectory(path, false), globals.bus);
  };
  std::optional<Error> unreadable;
  const auto deadline = std::chrono::steady_clock::now() + looks_end_after;
  for (bool first = true, last = false; !last; first = false) {
    if (!first) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    last = std::chrono::steady_clock::now() >= deadline;
    std::optional<shm::FileDirectory> directory;
    try {
      directory.emplace(path, false);
      const Sign before = sign_of(*directory);
      if (before.starting && !last) continue;
      const bool running = std::string_view(exchange::exchange_state(*directory, globals.bus)) == "running";
      nlohmann::json document = running ? nullptr : read_files();
      unreadable.reset();
      if (!running) {
        if (document.at("exchange").at("state") != "running" && sign_of(*directory) == before) return document;
        continue;
      }
    } catch (const Error& error) {
      // Other users may not read the files, only ask at the socket.
      unreadable.emplace(error);
      // A bus that is there, and only a file of it has gone between the look for it and the look into it.
      if (error.code() == ErrorCode::not_found && directory && directory->exists("exchange")) continue;
    }
    try {
      return nlohmann::json::parse(open_bus(globals, std::chrono::seconds(2)).stat_json());
    } catch (const Error& error) {
      if (!unreadable && error.code() == ErrorCode::no_exchange) continue;  // it went away since the look at its tick
      if (!unreadable && error.code() == ErrorCode::timeout) return read_files();  // it stands still since then
      if (!unreadable || error.code() != ErrorCode::no_exchange) throw;
    } catch (const Failure&) {
      if (!unreadable) throw;
    }
    break;
  }
  if (!unreadable) return read_files();
  if (unreadable->code() == ErrorCode::not_found) throw_no_bus(globals);
  throw Failure(status_refused, unreadable->what());
}

namespace {

using EachLine = std::function<void(std::string_view)>;

void walk_in_files(const Globals& globals, const std::string& name, std::uint64_t at_most, const EachLine& each) {
  const shm::FileDirectory directory(globals.directory + "/" + globals.bus, false);
  const shm::Segment exchange =
      shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
  const control::TopicReader topics(shm::Segment::attach(directory, "topics", shm::SegmentKind::topics,
                                                         shm::Access::read_only, control::topics_reserve_bytes));
  exchange::walk_dead_files(directory, name, [&, left = at_most](const ring::EventParts& event) mutable {
    if (left-- == 0) return false;
    each(client::dead_letter_line(event, topics, *exchange.as<const shm::ExchangeSegment>()));
    return true;
  });
}

void walk_in_exchange(Bus& bus, const std::string& name, std::uint64_t at_most, const EachLine& each) {
  std::uint64_t left = at_most;
  for (DeadLetterCursor cursor; cursor.more && left != 0;) {
    const std::string lines = bus.dead_letters_ndjson(name, cursor, std::min<std::uint64_t>(left, 4096));
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = lines.find('\n', at) + 1;
      each(std::string_view(lines).substr(at, end - at));
      at = end;
      --left;
    }
  }
}

}  // namespace

void walk_dead_letters(const Globals& globals, const std::string& name, std::uint64_t at_most, const EachLine& each) {
  const auto deadline = std::chrono::steady_clock::now() + looks_end_after;
  while (state_of(globals) == "running") {
    std::optional<Bus> bus;
    try {
      bus.emplace(open_bus(globals));
    } catch (const Error& error) {
      // It went away since the look at its state.
      if (error.code() != ErrorCode::no_exchange || std::chrono::steady_clock::now() >= deadline) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    return walk_in_exchange(*bus, name, at_most, each);
  }
  walk_in_files(globals, name, at_most, each);
}

}  // namespace ackring::tools
