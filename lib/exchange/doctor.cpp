#include "lib/exchange/doctor.hpp"

#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <tuple>

#include "ackring/error.hpp"
#include "lib/exchange/doctor_look.hpp"
#include "lib/exchange/host.hpp"

namespace ackring::exchange {

namespace {

constexpr std::uint64_t stalled_after_ns = 3'000'000'000;
constexpr int attempts_while_moving = 200;
constexpr std::uint64_t patience_ns = 300'000'000;  // with one thing that moves, in one look

void sleep_ns(std::uint64_t ns) {
  const timespec time{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  ::nanosleep(&time, nullptr);
}

std::string state_of(const Look& look) {
  const auto state = static_cast<shm::ExchangeState>(value(look.page->state));
  if (!look.live) return look.stopped || state == shm::ExchangeState::none ? "stopped" : "dead";
  return shm::Environment::now_ns() - value(look.page->tick_ns) > stalled_after_ns ? "stalled" : "running";
}

// One look at everything. Of a bus that goes away meanwhile, what was found until then.
DoctorReport look_once(const shm::Directory& directory, bool locked_by_caller) {
  Look look(directory);
  look.live = !locked_by_caller && is_served(directory);
  look.names = directory.list("");
  for (const std::string& name : look.names) {
    const std::string_view bare =
        std::string_view(name).substr(0, name.ends_with(".tmp") ? name.size() - 4 : name.size());
    if (bare.starts_with("sub.")) look.names_of_subscription[parse_file_name(bare).owner].push_back(name);
  }
  look.report.files = look.names.size();
  if (check_page(look)) {
    look.report.state = state_of(look);
    check_publishers(look);
    check_subscriptions(look);
    check_topics(look);
    check_names(look);
    check_numbers(look);
  } else {
    look.report.state = look.live ? "running" : "stopped";
    check_names(look);
  }
  return std::move(look.report);
}

std::tuple<Gravity, std::string, std::string> key_of(const Finding& finding) {
  return {finding.gravity, finding.file, finding.check};
}

}  // namespace

std::uint64_t DoctorReport::count(Gravity gravity) const noexcept {
  return static_cast<std::uint64_t>(std::count_if(
      findings.begin(), findings.end(), [gravity](const Finding& finding) { return finding.gravity == gravity; }));
}

const char* to_string(Gravity gravity) noexcept {
  return gravity == Gravity::violation ? "violation" : gravity == Gravity::warning ? "warning" : "note";
}

DoctorReport examine(const shm::Directory& directory, const DoctorOptions& options) {
  if (!directory.exists("exchange") && !directory.exists("exchange.lock")) {
    throw Error(ErrorCode::not_found, directory.path(), "there is no bus in it", "see shmtool ls");
  }
  DoctorReport report = look_once(directory, options.locked_by_caller);
  for (unsigned look = 1; look < options.looks && !report.sound(); ++look) {
    // An exchange that has ended since the last look leaves another kind of bus.
    if (options.locked_by_caller) break;
    if (!is_served(directory) && report.state != "running" && report.state != "stalled") break;
    sleep_ns(options.pause_ns);
    DoctorReport next = look_once(directory, options.locked_by_caller);
    std::set<std::tuple<Gravity, std::string, std::string>> before;
    for (const Finding& finding : report.findings) before.insert(key_of(finding));
    std::erase_if(next.findings, [&before](const Finding& finding) {
      return finding.gravity == Gravity::violation && !before.contains(key_of(finding));
    });
    report = std::move(next);
  }
  return report;
}

// ------------------------------------------------------------------------------------------------------------- one look

bool Look::has(const std::string& name) const { return std::binary_search(names.begin(), names.end(), name); }

BusFile Look::open(const std::string& name) {
  try {
    return {directory, name};
  } catch (const Error& error) {
    violation(name, "open", error.what());
    return {};
  }
}

bool Look::check_header(const BusFile& file, shm::SegmentKind kind, std::uint64_t owner, std::uint64_t least_bytes,
                        bool grows) {
  shm::SegmentHeader header;
  const std::string& name = file.name();
  const std::string bytes = std::to_string(file.bytes());
  if (!file.read_as(0, header)) {
    violation(name, "size", "it has " + bytes + " bytes, too few for a header");
    return false;
  }
  if (value(header.magic) != shm::segment_magic) {
    violation(name, "magic", "it does not begin with the magic number of a segment");
    return false;
  }
  if (header.layout_version != shm::layout_version) {
    violation(name, "layout_version",
              "found layout version " + std::to_string(header.layout_version) + ", required " +
                  std::to_string(shm::layout_version));
    return false;
  }
  if (header.kind != static_cast<std::uint32_t>(kind)) {
    violation(name, "kind",
              "found a segment of kind " + std::to_string(header.kind) + ", required " +
                  std::to_string(static_cast<std::uint32_t>(kind)));
    return false;
  }
  if (grows ? header.segment_bytes > file.bytes() : header.segment_bytes != file.bytes()) {
    violation(name, "segment_bytes",
              "the file has " + bytes + " bytes, its header says " + std::to_string(header.segment_bytes));
  }
  const std::uint64_t generation = value(page->generation);
  if (kind != shm::SegmentKind::exchange && (header.generation == 0 || header.generation > generation)) {
    violation(name, "generation",
              "it was made by generation " + std::to_string(header.generation) + " of the exchange, which is at " +
                  std::to_string(generation));
  }
  if (kind != shm::SegmentKind::exchange && header.boot_id != page->header.boot_id) {
    violation(name, "boot_id", "it is of another boot than the page of the exchange");
  }
  if (header.owner != owner) {
    violation(name, "owner",
              "it says to belong to " + std::to_string(header.owner) + ", its name says " + std::to_string(owner));
  }
  const bool zero = std::all_of(header.reserved.begin(), header.reserved.end(), [](auto byte) { return byte == 0; });
  if (!zero) violation(name, "reserved", "reserved bytes of its header are not zero");
  if (file.bytes() >= least_bytes) return true;
  violation(name, "size", "it has " + bytes + " bytes, fewer than the " + std::to_string(least_bytes) + " it needs");
  return false;
}

LastIntent Look::last_intent(std::size_t shard) const {
  std::array<shm::Intent, 2> intents;
  LastIntent last;
  if (!page_file.read_as(offsetof(shm::ExchangeSegment, intents) + shard * sizeof intents, intents)) return last;
  const shm::Intent& intent = value(intents[0].n) > value(intents[1].n) ? intents[0] : intents[1];
  last.n = value(intent.n);
  last.kind = static_cast<shm::TransactionKind>(value(intent.kind));
  last.source = value(intent.source);
  last.from = value(intent.from);
  last.to = value(intent.to);
  return last;
}

void stamp_words(const BusFile& file, std::uint64_t offset, std::size_t count, std::vector<std::uint64_t>& stamp) {
  const std::size_t at = stamp.size();
  stamp.resize(at + count);
  if (!file.read(offset, count * sizeof(std::uint64_t), &stamp[at])) stamp.resize(at);
}

void stamp_intents(const Look& look, std::vector<std::uint64_t>& stamp) {
  stamp_words(look.page_file, offsetof(shm::ExchangeSegment, next_file), 1, stamp);
  stamp_words(look.page_file, offsetof(shm::ExchangeSegment, intents),
              sizeof(shm::ExchangeSegment::intents) / sizeof(std::uint64_t), stamp);
}

bool until_it_stands_still(Look& look, const std::function<bool()>& attempt) {
  const std::size_t findings = look.report.findings.size();
  const std::uint64_t events = look.report.events;
  const std::uint64_t since_ns = shm::Environment::now_ns();
  for (int i = 0;; ++i) {
    if (attempt()) return true;
    look.report.findings.resize(findings);
    look.report.events = events;
    const bool patient = i < attempts_while_moving && shm::Environment::now_ns() - since_ns < patience_ns;
    if (!look.live || !patient) return false;
    sleep_ns(static_cast<std::uint64_t>(i) * 10'000);
  }
}

std::string_view name_of(shm::TransactionKind kind) noexcept {
  static constexpr std::array<std::string_view, 21> names{
      "none",     "route",   "pump",    "redeliver",     "retry",    "bury",      "release",
      "complete", "requeue", "remove",  "hand",          "park",     "set_aside", "discard",
      "forget",   "expire",  "give_up", "give_up_later", "announce", "clean",     "begin_with"};
  const auto number = static_cast<std::size_t>(kind);
  return number < names.size() ? names[number] : std::string_view{};
}

}  // namespace ackring::exchange
