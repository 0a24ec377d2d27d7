// What the parts of the doctor share during one look at a bus. Private to doctor*.cpp.
//
// Thread rules: one thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/exchange/bus_file.hpp"
#include "lib/exchange/doctor.hpp"
#include "lib/shm/format.hpp"

namespace ackring::exchange {

/// The intent that counts: what X did last, or is doing.
struct LastIntent {
  std::uint64_t n = 0;
  shm::TransactionKind kind = shm::TransactionKind::none;
  std::uint64_t source = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
};

struct Look {
  explicit Look(const shm::Directory& in) : directory(in) {}

  const shm::Directory& directory;
  bool live = false;     ///< an exchange holds the lock: bytes may move, and what a dead one may leave is wrong
  bool stopped = false;  ///< the last exchange came to its end: nothing is left for recovery
  std::vector<std::string> names;
  std::unordered_map<std::uint64_t, std::vector<std::string>> names_of_subscription;
  std::unique_ptr<shm::ExchangeSegment> page = std::make_unique<shm::ExchangeSegment>();
  BusFile page_file;
  std::optional<std::size_t> open_transaction;  ///< a shard of whose last intent some is done and some is not
  /// By publisher: the transactions of its counters, a shard each.
  std::unordered_map<std::uint64_t, std::array<std::uint64_t, shm::max_shards>> counted_through;
  DoctorReport report;
  /// Who uses a number first. Whether it is a possible one is asked at the end: a live bus goes on.
  std::unordered_map<std::uint32_t, std::string> topics_used;
  std::unordered_map<std::uint32_t, std::string> slots_used;
  std::unordered_map<std::uint64_t, std::string> clients_used;
  std::pair<std::uint64_t, std::string> largest_file_number;

  void add(Gravity gravity, std::string file, std::string check, std::string text) {
    report.findings.push_back({gravity, std::move(file), std::move(check), std::move(text)});
  }
  void violation(std::string file, std::string check, std::string text) {
    add(Gravity::violation, std::move(file), std::move(check), std::move(text));
  }
  /// What a crash may leave and the next exchange takes away: on a live bus nothing but wrong.
  void leftover(std::string file, std::string check, std::string text) {
    add(live ? Gravity::violation : Gravity::note, std::move(file), std::move(check), std::move(text));
  }
  void uses_file_number(std::uint64_t number, const std::string& file) {
    if (number > largest_file_number.first) largest_file_number = {number, file};
  }
  [[nodiscard]] bool has(const std::string& name) const;
  /// Opens it; where that fails, says so and answers an invalid one.
  [[nodiscard]] BusFile open(const std::string& name);
  /// Header of a segment: false where the rest means nothing. `grows`: the file may be larger than its header says.
  [[nodiscard]] bool check_header(const BusFile& file, shm::SegmentKind kind, std::uint64_t owner,
                                  std::uint64_t least_bytes, bool grows);
  /// The last intent of a shard at this very moment.
  [[nodiscard]] LastIntent last_intent(std::size_t shard) const;
  /// Has the bus had a transaction of this number, of whichever shard?
  [[nodiscard]] bool has_had(std::uint64_t n) const { return n <= last_intent(shm::shard_of(n)).n; }
};

/// Adds words of a file to a stamp: two equal stamps say that nothing has moved in between.
void stamp_words(const BusFile& file, std::uint64_t offset, std::size_t count, std::vector<std::uint64_t>& stamp);
void stamp_intents(const Look& look, std::vector<std::uint64_t>& stamp);

/// Calls `attempt` until it answers true, and no more often than a moving bus is worth; on a dead one, once. Findings of
/// an attempt that answers false are forgotten. False: it never did.
bool until_it_stands_still(Look& look, const std::function<bool()>& attempt);

/// The name of a kind of transaction; empty: there is none of this number.
[[nodiscard]] std::string_view name_of(shm::TransactionKind kind) noexcept;

// One part each; they add to the findings of the look.
[[nodiscard]] bool check_page(Look& look);  // doctor_page.cpp; false: nothing else means anything
void check_publishers(Look& look);          // doctor_publishers.cpp
void check_subscriptions(Look& look);       // doctor_subscription.cpp
void check_topics(Look& look);              // doctor_topics.cpp, after all that uses topics
void check_names(Look& look);               // doctor_names.cpp
void check_numbers(Look& look);             // doctor_page.cpp, at the end

}  // namespace ackring::exchange
