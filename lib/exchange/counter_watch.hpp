// CounterWatch: tells an operator what counters say that somebody should know: dropped events, dead letters, full logs and
// backlogs, what publishers were denied. It looks at them from the tick, so that the flow knows nothing of it: one line per
// subscription and reason in ten seconds, with how many there were since the line before.
//
// Thread rules: X's thread, that of the lead. It holds the other shards while it looks, a bounded number of subscriptions
// at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/exchange/exchange.hpp"
#include "lib/exchange/notice.hpp"

namespace ackring::exchange {

class CounterWatch {
 public:
  /// What has been counted by now is told by nobody. `sink` is not empty.
  CounterWatch(Exchange& lead, NoticeSink sink);

  void tick(std::uint64_t now_ns);
  /// Tells what is left to tell, however short the time since the line before.
  void finish(std::uint64_t now_ns);

  static constexpr std::uint64_t round_ns = 1'000'000'000;  // between two looks at the same counters, at least
  static constexpr std::uint64_t quiet_ns = 10'000'000'000;
  static constexpr std::size_t looks_per_tick = 256;

 private:
  struct Tally {
    std::uint64_t told = 0;
    std::uint64_t next_ns = 0;  // no line before
  };
  enum Reason : std::size_t { drop_newest, drop_oldest, too_large, gone_by, dead_lettered, dead_full, reasons };
  struct Subscription {
    std::uint64_t id = 0;
    std::array<Tally, reasons> tallies;
    std::uint64_t blocked_next_ns = 0;
    bool blocked = false;
  };
  struct Publisher {
    std::uint64_t incarnation = 0;
    Tally discarded;
    Tally denied;
  };

  static std::array<std::uint64_t, reasons> counts_of(const Queue& queue) noexcept;
  [[nodiscard]] std::size_t places() const noexcept { return lead_.publishers().size() + lead_.queues().size(); }
  bool look(std::size_t place, std::uint64_t now_ns, bool all);
  void look(const Queue& queue, std::uint64_t now_ns, bool all);
  void look(const Ingress& ingress, std::uint64_t now_ns, bool all);
  void look_whether_blocked(const Queue& queue, Subscription& seen, std::uint64_t now_ns);
  static std::uint64_t take(Tally& tally, std::uint64_t count, std::uint64_t now_ns, bool all) noexcept;
  void tell(const Queue& queue, Reason reason, std::uint64_t events, std::uint64_t total);
  void tell(const Ingress& ingress, const char* event, std::string_view why, std::uint64_t events, std::uint64_t total);

  Exchange& lead_;
  NoticeSink sink_;
  std::vector<Subscription> subscriptions_;  // by index of the queue
  std::vector<Publisher> publishers_;        // by slot
  std::size_t at_ = 0;                       // of this round
  std::uint64_t next_round_ns_ = 0;
};

}  // namespace ackring::exchange
