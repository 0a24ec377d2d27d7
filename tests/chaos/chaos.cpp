// scripts/chaos: see SCENARIOS.md.
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <random>

#include "tests/chaos/books.hpp"
#include "tests/chaos/storm.hpp"
#include "tools/common/program.hpp"

using namespace ackring;
using namespace ackring::chaos;

namespace {

struct Arguments {
  double minutes = 0;
  double seconds = 0;
  double round_seconds = 10;
  bool keep = false;
};

void say(const std::string& line) { std::fprintf(stderr, "chaos: %s\n", line.c_str()); }

// A small file system of its own for the bus, in a mount namespace that only this run has.
bool make_room(const std::string& directory) {
  if (::geteuid() != 0 || ::unshare(CLONE_NEWNS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return ::mount("chaos", directory.c_str(), "tmpfs", 0, "size=128m,mode=0700") == 0;
}

class Chaos {
 public:
  Chaos(Settings settings, Arguments arguments) : settings_(std::move(settings)), arguments_(arguments) {}

  int run() {
    const std::int64_t started = now_ns();
    const double seconds = arguments_.seconds + 60 * arguments_.minutes;
    settings_.own_room = make_room(settings_.directory);
    if (!settings_.own_room) say("no file system of its own (it needs root): it will not be full in this run");
    say("seed " + std::to_string(settings_.seed) + ", " + std::to_string(seconds) + " s, in " + settings_.directory);
    try {
      Storm storm(settings_, notes_, tally_);
      set_up(storm);
      const std::int64_t end = started + static_cast<std::int64_t>(seconds * 1e9);
      while (now_ns() < end && stuck_ == 0) {
        const auto left = static_cast<double>(end - now_ns()) / 1e9;
        round(storm, std::min(left, arguments_.round_seconds));
      }
      if (stuck_ == 0) tear_down(storm);
      storm.stop_exchange();
    } catch (const std::exception& error) {  // what was found so far is told all the same
      broken(std::string("the run ended early: ") + error.what());
    }
    const int status = report(static_cast<double>(now_ns() - started) / 1e9);
    if (settings_.own_room) (void)::umount2(settings_.directory.c_str(), MNT_DETACH);
    return status;
  }

 private:
  void broken(const std::string& line) {
    ++findings_.broken;
    findings_.tell(line);
    say(line);
  }

  Json stat(const Storm& storm) {
    const Ran ran = chaos::run(storm.shmtool({"stat", "--json"}));
    if (ran.status != 0) throw std::runtime_error("shmtool stat: status " + std::to_string(ran.status));
    Json document = Json::parse(ran.output);
    if (const std::string wrong = imbalance(document); !wrong.empty()) broken("stat: " + wrong);
    return document;
  }

  void set_up(Storm& storm) {
    storm.start_exchange();
    tools::Child child = tools::Child::start("setup", [this](tools::Channel& channel) {
      Place place{.directory = settings_.directory};
      Bus bus = open_bus(place);
      for (const Role& role : roles_) bus.create_subscription(role.options);
      channel.send({{"done", true}});
    });
    child.channel().expect(patience, "the subscriptions");
    child.wait(patience);
    last_ = stat(storm);
  }

  void round(Storm& storm, double seconds) {
    static constexpr std::array<Kind, 4> kinds{Kind::all, Kind::steady, Kind::embedded, Kind::all};
    static constexpr const char* names[] = {"all", "embedded", "steady"};
    const Kind kind = kinds[rounds_++ % kinds.size()];
    notes_.clear();
    for (std::size_t p = 0; p < publishers; ++p) {
      notes_->of_publishers[p].committed.store(numbers_[p].last, std::memory_order_seq_cst);
      notes_->of_publishers[p].begun.store(numbers_[p].last, std::memory_order_seq_cst);
    }
    const std::uint64_t kills = tally_.all_kills();
    const std::int64_t began = now_ns();
    storm.rage(kind, Nanoseconds(static_cast<std::int64_t>(seconds * 1e9)));
    const std::int64_t calmed = now_ns();
    const std::string stuck = storm.calm();
    for (std::uint32_t i = 0; i < std::min<std::uint32_t>(notes_->complaint_count.load(std::memory_order_seq_cst), 64);
         ++i) {
      broken(notes_->complaints[i].data());
    }
    for (const std::string& surprise : tally_.surprises) broken(surprise);
    tally_.surprises.clear();
    if (!stuck.empty()) {
      ++stuck_;
      findings_.tell("stuck: " + stuck);
      say("stuck: " + stuck);
      return;
    }
    const std::uint64_t before = findings_.deliveries;
    const std::uint64_t events = events_;
    check(storm);
    say("round " + std::to_string(rounds_) + " (" + names[static_cast<std::size_t>(kind)] +
        "): " + std::to_string(tally_.all_kills() - kills) + " kills in " +
        std::to_string((calmed - began) / 1'000'000) + " ms, quiet " + std::to_string((now_ns() - calmed) / 1'000'000) +
        " ms later; " + std::to_string(events_ - events) + " events, " + std::to_string(findings_.deliveries - before) +
        " deliveries, " + std::to_string(notes_->looks.load(std::memory_order_seq_cst)) +
        " looks at stat; so far lost " + std::to_string(findings_.lost) + ", without cause " +
        std::to_string(findings_.without_cause) + ", broken " + std::to_string(findings_.broken));
  }

  void check(Storm& storm) {
    const Json now = stat(storm);
    Round round{.seed = settings_.seed, .room_was_short = storm.room_was_short()};
    round.first_requeue_ns = notes_->first_requeue_ns.load(std::memory_order_seq_cst);
    Findings found;
    for (std::size_t p = 0; p < publishers; ++p) {
      numbers_[p] = {numbers_[p].last, notes_->of_publishers[p].committed.load(std::memory_order_seq_cst)};
      round.numbers[p] = numbers_[p];
      events_ += numbers_[p].last - numbers_[p].before;
      const Json row = row_of(now, "publishers", publisher_name(p));
      if (row.is_null()) {
        broken("publisher " + publisher_name(p) + " is not in stat");
        continue;
      }
      found.add(check_publisher(round, p, notes_->of_publishers[p].repeated.load(std::memory_order_seq_cst),
                                row_of(last_, "publishers", publisher_name(p)), row));
    }
    std::size_t slot = 0;
    for (const Role& role : roles_) {
      SubscriptionFacts facts{.role = &role};
      facts.before = row_of(last_, "subscriptions", role.options.name);
      facts.after = row_of(now, "subscriptions", role.options.name);
      for (std::size_t i = 0; i < role.members; ++i, ++slot) gather(facts, slot);
      facts.letters = letters(storm, role);
      found.add(check_subscription(round, facts));
    }
    for (const std::string& line : found.lines) say(line);
    findings_.add(found);
    check_holdings(storm);
    last_ = stat(storm);
  }

  void gather(SubscriptionFacts& facts, std::size_t slot) {
    const MemberNotes& member = notes_->of_members[slot];
    const std::uint64_t count = member.count.load(std::memory_order_seq_cst);
    facts.notes.insert(facts.notes.end(), member.notes.begin(),
                       member.notes.begin() + static_cast<std::ptrdiff_t>(count));
    for (std::uint32_t life = 0; life < lives_of_actor; ++life) {
      const std::int64_t ended = member.actor.ended_ns[life].load(std::memory_order_seq_cst);
      if (ended == 0) break;
      facts.deaths.push_back({static_cast<std::uint32_t>(slot), life, ended});
    }
  }

  // All dead letters, which go for good afterwards.
  std::vector<Letter> letters(const Storm& storm, const Role& role) {
    const Ran shown = chaos::run(storm.shmtool({"dlq", "show", role.options.name, "--json"}));
    if (shown.status != 0) {
      broken("shmtool dlq show: status " + std::to_string(shown.status));
      return {};
    }
    std::vector<Letter> found = letters_of(shown.output);
    if (found.empty()) return found;
    const Ran purged = chaos::run(storm.shmtool({"dlq", "purge", role.options.name}));
    if (purged.status != 0) broken("shmtool dlq purge: status " + std::to_string(purged.status));
    return found;
  }

  void check_holdings(const Storm& storm) {
    Holdings now;
    std::vector<std::string> lines;
    const std::int64_t deadline = now_ns() + Nanoseconds(10s).count();
    do {
      now = look(storm.bus_directory(), storm.exchange_pid());
      lines = leaks(holdings_, now);
      if (!lines.empty()) ::usleep(20'000);
    } while (!lines.empty() && now_ns() < deadline);
    for (const std::string& line : lines) {
      say("leaked: " + line);
      findings_.tell("leaked: " + line);
      ++leaked_[line.starts_with("desc")    ? "descriptors"
                : line.starts_with("map")   ? "mappings"
                : line.starts_with("bytes") ? "bytes"
                                            : "files"];
    }
    if (holdings_.files.empty()) holdings_ = now;
  }

  void tear_down(Storm& storm) {
    doctor(storm, "of the live bus");
    for (const Role& role : roles_) {
      const Ran ran = chaos::run(storm.shmtool({"subscription", "remove", role.options.name}));
      if (ran.status != 0)
        broken("subscription " + role.options.name + " can't be removed: status " + std::to_string(ran.status));
    }
    const Holdings now = look(storm.bus_directory(), storm.exchange_pid());
    for (const std::string& file : now.files) {
      if (!file.starts_with("sub.")) continue;
      ++leaked_["files"];
      findings_.tell("leaked: " + file + " of a subscription that was removed");
    }
    if (const int status = storm.stop_exchange(); status != 0) {
      broken("the exchange ended with status " + std::to_string(status) + " on SIGTERM");
    }
    doctor(storm, "of the stopped bus");
  }

  void doctor(const Storm& storm, const char* what) {
    // Where there is no such command yet, the help is that of the program.
    if (chaos::run({settings_.shmtool, "doctor", "--help"}).output.find("shmtool doctor") == std::string::npos) return;
    const Ran ran = chaos::run(storm.shmtool({"doctor"}));
    if (ran.status != 0) broken(std::string("shmtool doctor, ") + what + ": " + ran.output);
  }

  int report(double seconds) {
    const std::uint64_t leaked = leaked_["files"] + leaked_["descriptors"] + leaked_["mappings"] + leaked_["bytes"];
    const bool good = findings_.clean() && stuck_ == 0 && leaked == 0 && events_ > 0 && tally_.all_kills() > 0;
    std::string kept;
    if (!good || arguments_.keep) kept = keep();
    Json kills = tally_.kills;
    kills["all"] = tally_.all_kills();
    Json duplicated = findings_.duplicated;
    duplicated["without_cause"] = findings_.without_cause;
    const Json line = {{"seed", settings_.seed},
                       {"seconds", seconds},
                       {"rounds", rounds_},
                       {"kills", kills},
                       {"killed_in_recovery", tally_.in_recovery},
                       {"stops", tally_.stops},
                       {"full", tally_.full},
                       {"no_descriptors", tally_.descriptors},
                       {"events", events_},
                       {"deliveries", findings_.deliveries},
                       {"lost", findings_.lost},
                       {"duplicated", duplicated},
                       {"stuck", stuck_},
                       {"leaked", leaked_},
                       {"broken", findings_.broken},
                       {"ok", good}};
    if (!good) {
      for (const std::string& text : findings_.lines) say(text);
      say("FAILED: look at the bus with: shmtool --dir " + kept + " --bus " + bus_name + " stat; again with --seed " +
          std::to_string(settings_.seed));
    }
    std::printf("%s\n", line.dump().c_str());
    return good ? 0 : 1;
  }

  // The file system of this run goes with its namespace: what is in it is copied out.
  std::string keep() {
    const std::string to = settings_.directory + ".kept";
    std::error_code failed;
    std::filesystem::create_directories(to + "/" + bus_name, failed);
    for (const auto& entry : std::filesystem::directory_iterator(settings_.directory + "/" + bus_name, failed)) {
      if (entry.is_regular_file()) std::filesystem::copy(entry, to + "/" + bus_name, failed);
    }
    say("the bus is kept in " + to);
    return to;
  }

  Settings settings_;
  Arguments arguments_;
  SharedNotes notes_;
  Tally tally_;
  std::vector<Role> roles_ = roles();
  std::array<Numbers, publishers> numbers_{};
  Json last_;
  Findings findings_;
  Holdings holdings_;
  std::map<std::string, std::uint64_t> leaked_;
  std::uint64_t rounds_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t stuck_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Kills and stops real processes of a bus at random, and balances the books");
  Arguments arguments;
  Settings settings;
  settings.seed = std::random_device{}();
  app.add_option("--minutes", arguments.minutes, "How long, in minutes")->check(tools::above_zero());
  app.add_option("--seconds", arguments.seconds, "How long, in seconds ($ACKRING_CHAOS_SECONDS, else 60)")
      ->check(tools::above_zero());
  app.add_option("--seed", settings.seed, "Of all choices (random)");
  app.add_option("--kills-per-second", settings.kills_per_second, "While faults happen (12)")
      ->check(tools::above_zero());
  app.add_option("--round-seconds", arguments.round_seconds, "Of faults before the books are balanced (10)")
      ->check(tools::above_zero());
  app.add_option("--dir", settings.directory, "An empty directory for the bus (a temporary one)");
  app.add_flag("--keep", arguments.keep, "Keep a copy of the bus, as a run that fails does");
  app.add_option("--exchange", settings.exchange, "The program ackring-exchange")->required();
  app.add_option("--shmtool", settings.shmtool, "The program shmtool")->required();
  return tools::run_program("chaos", app, argc, argv, [&] {
    if (arguments.minutes == 0 && arguments.seconds == 0) {
      const char* text = std::getenv("ACKRING_CHAOS_SECONDS");
      arguments.seconds = text == nullptr ? 60 : std::strtod(text, nullptr);
    }
    std::optional<tools::TemporaryDirectory> temporary;
    if (settings.directory.empty()) settings.directory = temporary.emplace("chaos").path();
    return Chaos(settings, arguments).run();
  });
}
