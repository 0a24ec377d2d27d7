// The driver: random operations of publishers, members and operators on the real exchange in virtual time, each told to
// the model with what could be seen. All chance comes from the seed.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "lib/shm/environment.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/model/model.hpp"

namespace ackring::test::model {

inline constexpr std::uint64_t ms = 1'000'000;

/// How a driver deceives its model, to see whether that notices.
enum class Lie {
  none,
  lost,
  duplicated,
  reordered,
  early,
  wrong_attempt,
  wrong_cause,
  wrong_payload,
  key_reordered,  // two events of one key
  wrong_member,   // the key is another one's
  unsettled,      // of an ordered subscription: the next one comes, and this one is not acked
  undue,          // an event is taken before the time from which it may be
  expired,        // an event comes to a member when its time is over
};

class Driver {
 public:
  explicit Driver(std::uint64_t seed, bool thorough = false, Lie lie = Lie::none);
  ~Driver();
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  /// Does it all; throws Complaint.
  void run();
  [[nodiscard]] bool lied() const { return lied_; }
  /// How often what happened: the counters of `stat` at the end, all subscriptions together, and a few of its own.
  [[nodiscard]] const Counters& happened() const { return happened_; }
  /// What was done, one line each.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Death {};
  struct Hook final : shm::EnvironmentHook {
    const std::uint64_t* clock = nullptr;
    std::uint64_t stores_left = ~std::uint64_t{0};  // until death
    void before_store(const void* where, std::size_t bytes) override;
    std::uint64_t now_ns() override { return *clock; }
  };
  struct Pending {
    std::uint64_t sequence;
    std::string topic;
    std::string key;
    std::size_t bytes;
    Times times;
  };
  struct Sender {
    std::string name;
    std::uint16_t slot = 0;
    std::unique_ptr<CorePublisher> publisher;  // none: it has closed
    std::deque<Pending> pending;
    bool numbers = false;        // it numbers its events itself, and may repeat some
    std::uint64_t read = 0;      // events that the exchange has read, of all its runs
    std::uint64_t sequence = 0;  // of the last one that counted
    std::uint64_t routed = 0;
    std::uint64_t unroutable = 0;
    std::uint64_t duplicates = 0;
  };
  struct Consumer {
    std::uint64_t number = 0;  // that the model knows it by
    std::unique_ptr<CoreMember> member;
    std::map<std::uint64_t, std::pair<std::string_view, std::string>> views;  // by entry, and what they should show
    std::vector<std::uint64_t> past;                                          // entries with a verdict
    bool releases = false;  // its views are let go without verdicts; then nothing is acked in bulk
    bool lazy = false;      // it does little
    std::uint64_t revoked_to = 0;
  };
  struct Receiver {
    explicit Receiver(SubscriptionOptions options) : model(std::move(options)) {}
    Subscription model;
    std::vector<std::unique_ptr<Consumer>> consumers;
    std::map<std::uint64_t, std::uint64_t> entered;  // by ring: what the model knows to be in it ends here
    std::uint64_t joined = 0;
    bool ending = false;  // it goes when it is empty
  };

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool chance(std::uint64_t percent) { return below(100) < percent; }
  template <class T>
  T pick(std::initializer_list<T> from) {
    return *(from.begin() + below(from.size()));
  }
  void note(std::string text);

  // driver.cpp: the exchange
  bool exchange(bool may_die, const std::function<void()>& work);
  void revive();
  void run_exchange();
  void tick(std::uint64_t ns);
  void act(const std::function<void()>& work);
  bool surely(const std::function<void()>& work);
  void look_at_routing();
  void look_at_drops();
  void look_at_revoked();
  void look_at_rings();
  void tell_entered(Receiver& receiver, Id id);
  void look_at_ends();
  void look(Receiver& receiver);
  [[nodiscard]] exchange::Queue& queue_of(const Receiver& receiver);

  // books.cpp
  Logs logs_of(const std::string& name);
  static std::vector<Id> ids_in(const exchange::Lane& lane, std::uint64_t from, std::uint64_t to);
  void check(bool certainly = false);
  void compare_books(const nlohmann::ordered_json& stat);

  // operations.cpp
  SubscriptionOptions any_options();
  std::vector<std::string> any_patterns();
  void any_timing(SubscriptionOptions& options);
  Times any_times();
  void choose_number(Sender& sender);
  void step();
  void let_time_pass();
  void publish();
  void open_or_close(Sender& sender);
  void change_subscription();
  void drain();
  void end_all();
  [[nodiscard]] bool all_routed() const;

  // operators.cpp
  void operate(Receiver& receiver);
  void pause_or_resume(Receiver& receiver);
  void purge(Receiver& receiver);
  void end(Receiver& receiver, bool bury);
  void operate_dead(Receiver& receiver);

  // consumers.cpp
  void attach(Receiver& receiver);
  void detach(Receiver& receiver, Consumer& consumer);
  void take(Receiver& receiver, Consumer& consumer, std::uint64_t count);
  void tell_taken(Receiver& receiver, Consumer& consumer, const Seen& seen);
  bool deceive(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told, std::uint64_t& now_ns);
  bool reorder(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told);
  bool hide_ack(Receiver& receiver, Consumer& consumer, std::vector<Taken>& told);
  void decide(Receiver& receiver, Consumer& consumer);
  void check_views(Receiver& receiver, Consumer& consumer);
  bool take_and_ack_all(Receiver& receiver);

  std::mt19937_64 random_;
  Hook hook_;
  World world_;
  std::vector<std::unique_ptr<Sender>> senders_;
  std::vector<std::unique_ptr<Receiver>> receivers_;
  std::vector<std::string> notes_;
  std::uint64_t epoch_ = 0;
  std::uint64_t last_tick_ns_ = 0;
  std::uint64_t served_ns_ = 0;  // for how long there has been an exchange, at the last tick
  bool first_tick_ = true;       // the next one is the first of this exchange
  std::uint64_t names_ = 0;
  std::uint64_t ticks_ = 0;
  bool deaths_ = false;    // the exchange dies in the middle of things
  bool timed_ = false;     // some events may not be delivered yet, or not any more
  bool thorough_ = false;  // the books are looked at after every tick
  bool drained_ = false;
  Counters happened_;
  Lie lie_;
  bool lied_ = false;
  bool purging_ = false;
};

}  // namespace ackring::test::model
