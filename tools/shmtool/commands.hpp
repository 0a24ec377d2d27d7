// The commands of shmtool. Each add_… function adds one to the command line and, when it was asked for, sets what
// Globals::run does; one file per command.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "ackring/bus.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::tools {

/// Options that may stand anywhere on the line, and the command that was chosen.
struct Globals {
  std::string bus = "default";
  std::string directory = shm::default_directory();
  bool directory_given = false;
  std::function<int()> run;
};

void add_ls(CLI::App& app, Globals& globals);
void add_ping(CLI::App& app, Globals& globals);
void add_stat(CLI::App& app, Globals& globals);
void add_top(CLI::App& app, Globals& globals);
void add_pub(CLI::App& app, Globals& globals);
void add_sub(CLI::App& app, Globals& globals);
void add_tail(CLI::App& app, Globals& globals);
void add_record(CLI::App& app, Globals& globals);
void add_replay(CLI::App& app, Globals& globals);
void add_peek(CLI::App& app, Globals& globals);
void add_explain(CLI::App& app, Globals& globals);
void add_subscription(CLI::App& app, Globals& globals);
void add_dlq(CLI::App& app, Globals& globals);
void add_metrics(CLI::App& app, Globals& globals);
void add_plan(CLI::App& app, Globals& globals);
void add_doctor(CLI::App& app, Globals& globals);
void add_gc(CLI::App& app, Globals& globals);
void add_bench(CLI::App& app, Globals& globals);
void add_demo(CLI::App& app, Globals& globals);

/// A command under `app` that takes the global options too.
CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& footer);

/// Attaches to the bus; never hosts an exchange. Throws Failure (status_refused) if there is none.
[[nodiscard]] Bus open_bus(const Globals& globals, Nanoseconds timeout = std::chrono::seconds(5));

/// The stat document: asked from the exchange where it answers, else read from shared memory. Throws Failure
/// (status_refused) where there is no such bus.
[[nodiscard]] nlohmann::json stat_document(const Globals& globals);

/// Calls `each` with the dead letters of a subscription, oldest first, `at_most` of them: a line of JSON each. Asked and
/// read as the stat document is. Throws Failure, Error (not_found: no such subscription).
void walk_dead_letters(const Globals& globals, const std::string& name, std::uint64_t at_most,
                       const std::function<void(std::string_view)>& each);

/// The document as tables.
[[nodiscard]] std::string stat_text(const nlohmann::json& document);

}  // namespace ackring::tools
