// Exchange (X): routes what publishers commit into the queues of subscriptions, and settles what members decide. A bus may
// have several of them, its shards, which share what peers.hpp says; the lead, shard 0, speaks for all of them: what it is
// asked about a subscription of another shard it has that one do.
//
// The steps of the flow are in the files of their names: route_table, deliver, settle, pump, retry, watchdog; redo goes on
// after a crash, recover finds what is there, membership lets clients come and go. step() and tick() order them.
//
// Thread rules: everything on one thread; the recovery of a large bus has the help of a second one. With several shards,
// step(), tick(), needs_tick(), prepare_park(), unpark() and heat() of each on one thread, and everything else on that of
// the lead, while it holds them all. Nothing here sleeps, reads a clock or waits for a client.
// Invariants:
//  1. One transaction at a time and shard, named by its intent; a sink is written only inside one (transaction.cpp).
//  2. Client memory is read once per value, validated, and never trusted.
//  3. Destruction writes nothing shared: a destroyed Exchange is a killed one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ackring/options.hpp"
#include "lib/control/access.hpp"
#include "lib/exchange/attempt.hpp"
#include "lib/exchange/bounds.hpp"
#include "lib/exchange/dead_letter.hpp"
#include "lib/exchange/event_ids.hpp"
#include "lib/exchange/grants.hpp"
#include "lib/exchange/ingress.hpp"
#include "lib/exchange/last_values.hpp"
#include "lib/exchange/moves.hpp"
#include "lib/exchange/notice.hpp"
#include "lib/exchange/peers.hpp"
#include "lib/exchange/queue.hpp"
#include "lib/exchange/route_table.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::exchange {

class Exchange {
 public:
  /// The lead of the shards that the directory knows of: adopts what is there (recovering it) or starts an empty bus with
  /// so many `shards`. `access` holds for what publishers defined before, too. Throws Error.
  explicit Exchange(shm::Directory& directory, control::AccessRules access = {}, std::size_t shards = 1);
  /// The same, divided into `shards` (1 to max_shards) anew, if there were others: where every shard has come equally far
  /// in every ring; else they stay as they are until a later start, and report() says so.
  static std::unique_ptr<Exchange> open(shm::Directory& directory, control::AccessRules access, std::size_t shards);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // -- the flow

  /// Moves events: one bounded batch of each polled publisher and of each backlog that can move. True if any moved.
  bool step(std::uint64_t now_ns);
  /// Reads all verdicts, redelivers what was nacked or timed out, retires what is done. Every few milliseconds.
  void tick(std::uint64_t now_ns);
  /// Shards by number; nullptr: there is none of it. Of the lead.
  [[nodiscard]] const std::vector<Exchange*>& shards() const noexcept { return peers_->shards; }
  /// Does, of the lead, what shards could not do while others ran: where one has called for it. All are held.
  void look_after_shards(std::uint64_t now_ns);
  [[nodiscard]] Peers& peers() noexcept { return *peers_; }
  /// Who runs the other shards, from now on; nullptr: the thread that calls everything else. All are held.
  void set_holder(ShardHolder* holder) noexcept;

  /// True if tick() has something to wait for: unsettled deliveries, backlogs, clients that can't ring.
  [[nodiscard]] bool needs_tick() const noexcept;
  /// Before sleeping: asks every client to ring. False: there is work, do not sleep.
  bool prepare_park();
  void unpark();
  /// A client rang: poll this publisher again.
  void heat(Ingress& ingress);

  // -- clients

  std::uint64_t new_client();
  /// Throws Error: permission where rules hold for `owner` and the name is that of another user's publisher, …
  PublisherGrant attach_publisher(std::uint64_t client, const std::string& name, std::uint64_t ring_bytes,
                                  const control::Identity& owner = control::Identity::own());
  MemberGrant attach_member(std::uint64_t client, const SubscriptionOptions& options, bool ephemeral,
                            const std::vector<std::string>& given,
                            const control::Identity& owner = control::Identity::own());
  /// The publisher's process is gone or has closed it: what is committed is routed, then the ring goes.
  void detach_publisher(Ingress& ingress);
  /// The member's process is gone or has left: what was taken and has no verdict is delivered again.
  void detach_member(Lane& lane);
  bool detach_members(Queue& queue, const std::function<bool(const Lane&)>& which);
  void client_gone(std::uint64_t client);
  [[nodiscard]] Ingress* find_publisher(std::uint16_t slot, std::uint64_t incarnation) noexcept;
  [[nodiscard]] Queue* find_queue(std::string_view name) noexcept;
  [[nodiscard]] Queue* find_queue(std::uint64_t id) noexcept;
  [[nodiscard]] std::vector<Offence> take_offences() noexcept { return std::exchange(offences_, {}); }  // each once
  /// Client incarnations that hold something, each once, and whose they are.
  [[nodiscard]] std::map<std::uint64_t, uid_t> holders() const;

  // -- subscriptions

  Queue& create_subscription(const SubscriptionOptions& options, bool ephemeral);
  void update_subscription(const SubscriptionOptions& options, const std::vector<std::string>& given);
  /// Throws Error (no_space, permission, system): it is as it was.
  void remove_subscription(Queue& queue);

  /// Nothing is handed out, and what members have not taken is taken back, until resume(). Throws Error (no_space).
  void pause(Queue& queue);
  void resume(Queue& queue);
  /// What is not in flight goes for good. Answers how many events that were.
  std::uint64_t purge(Queue& queue, std::uint64_t now_ns);
  /// Events of it that are not settled, dead letters excepted.
  [[nodiscard]] static std::uint64_t pending(const Queue& queue);
  /// From here on it matches nothing; it goes when nothing is left in it, dead letters included. `bury`: what is left
  /// becomes dead letters.
  void end_subscription(Queue& queue, bool bury = false);

  /// Dead letters that match go back to their subscription, at once, with a new budget of attempts.
  DeadLetterResult requeue_dead(Queue& queue, const DeadLetterFilter& filter, std::uint64_t now_ns);
  /// Dead letters that match go for good.
  DeadLetterResult purge_dead(Queue& queue, const DeadLetterFilter& filter);
  /// Calls `each` with the dead letters that match and their log positions, oldest first. It returns false for one that
  /// there is no room for, which ends the walk. `from` may be any number.
  static DeadLetterResult walk_dead(const Queue& queue, const DeadLetterFilter& filter,
                                    const std::function<bool(std::uint64_t, const ring::EventParts&)>& each);

  /// Reads every verdict of one queue now.
  void sweep(Queue& queue, std::uint64_t now_ns);
  /// Time on the clock by which taken deliveries time out: it goes on only while an exchange is there and gets to run, over
  /// all restarts (F17). `now_ns` is not before the last tick.
  [[nodiscard]] std::uint64_t served_at(std::uint64_t now_ns) const noexcept;
  /// Marks the bus as stopped, at the end of a clean run.
  void close();

  [[nodiscard]] shm::ExchangeSegment& page() noexcept { return *page_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Queue>>& queues() const noexcept { return queues_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Ingress>>& publishers() const noexcept { return publishers_; }
  [[nodiscard]] const control::TopicTable& topics() const noexcept { return *peers_->topics; }
  [[nodiscard]] const control::AccessRules& access() const noexcept { return access_; }
  /// Other rules, from now on. Publishers lose the topics that they may not publish to any more: their events are counted
  /// as denied. Members stay until their clients connect anew.
  void set_access(control::AccessRules access);
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  /// Lock files of clients that were there when it started; the service judges which of them are alive.
  [[nodiscard]] const std::vector<std::string>& client_files() const noexcept { return client_files_; }
  /// What recovery found and did, and what was set aside since and not taken yet: no more than 1,000 of the latter.
  [[nodiscard]] const std::vector<Notice>& report() const noexcept { return report_; }
  [[nodiscard]] std::vector<Notice> take_report() noexcept { return std::exchange(report_, {}); }
  /// From which the delay of a retry counts: read after the verdict was seen, so that a thread that stands still between
  /// both makes it longer. Without one, the time of the tick counts.
  void set_retry_clock(std::uint64_t (*clock)()) noexcept;
  void set_full_ring_grace(std::uint64_t ns) noexcept;  // instead of full_ring_grace_ns
  /// Some process of the bus has no membarrier: from now on, hot sides fence.
  void set_fence_required(bool required) noexcept;

  static std::string ring_name(std::uint64_t queue, std::uint64_t incarnation);
  static std::string ack_name(std::uint64_t queue, std::uint64_t incarnation);
  static std::string ingress_name(std::uint16_t slot, std::uint64_t incarnation);
  static std::string cursor_name(std::uint16_t slot, std::uint64_t incarnation);

 private:
  // transaction.cpp
  void begin(shm::TransactionKind kind, std::uint64_t source, std::uint64_t from, std::uint64_t to);
  void touch(Queue& queue);
  void touch_ring(Lane& lane);
  void touch_backlog(Queue& queue);
  void touch_log(Queue& queue, shm::Sink& sink, const log::SegmentLog& log, std::uint8_t which);
  static void count_source(Queue& queue, shm::TransactionKind kind, const shm::RecordHeader& record);
  static void write_counters(Queue& queue);
  bool commit_logs(Queue& queue);
  void commit_sinks();
  void commit_ingress(Ingress& ingress);
  void wake_members();

  // shards.cpp
  Exchange(Exchange& lead, std::size_t shard);
  [[nodiscard]] bool alone() const noexcept { return peers_->shards.size() == 1; }
  [[nodiscard]] Exchange& lead() const noexcept { return *peers_->shards[0]; }
  [[nodiscard]] Exchange& owner_of(const Queue& queue) const noexcept { return *peers_->shards[queue.shard]; }
  template <class Each>
  void for_each_shard(const Each& each) const {
    for (Exchange* shard : peers_->shards) {
      if (shard != nullptr) each(*shard);
    }
  }
  /// What the lead knows of the same publisher: its client's bell above all.
  [[nodiscard]] Ingress& of_lead(const Ingress& ingress) const noexcept { return *lead().publishers_[ingress.slot]; }
  [[nodiscard]] bool may_change();
  void call_lead();
  void change_routes(const Queue& queue, const std::vector<std::string>& patterns, bool add);
  [[nodiscard]] std::size_t shard_for(const SubscriptionOptions& options, StartFrom from) const;
  [[nodiscard]] bool read_by_all(const Ingress& ingress) const;
  [[nodiscard]] bool passed_by_all(const Ingress& ingress) const;
  [[nodiscard]] bool are_level() const;
  bool divide(std::size_t shards);
  void say_polled(Ingress& ingress, bool polled);
  void find_quarantined();
  void drain_all(const Ingress& ingress);

  // route.cpp
  bool drain(Ingress& ingress, std::uint64_t now_ns, std::uint64_t until, bool redoing);
  bool topic_ready(Ingress& ingress, const shm::RecordHeader& header);
  bool define_topic(Ingress& ingress, const shm::RecordHeader& header, const std::byte* text);
  void quarantine(Ingress& ingress, const std::string& why);

  // exchange.cpp, waiting.cpp
  void activate(Queue& queue);
  void note(Notice notice);
  void rest_quiet_rings(std::uint64_t now_ns);

  // deliver.hpp, deliver.cpp
  bool ready(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing);
  bool ready_slowly(Queue& queue, std::uint64_t bytes, std::uint64_t now_ns, bool redoing);
  bool open_window(Queue& queue, std::uint64_t bytes);
  static void count_entries(Queue& queue);
  static void close_window(Queue& queue);
  bool backlog_ready(Queue& queue, std::uint64_t bytes, bool redoing);
  void put(Queue& queue, const shm::RecordHeader& header, const std::byte* body);
  void put_slowly(Queue& queue, const shm::RecordHeader& header, const std::byte* body);
  bool overflow_ready(Queue& queue, std::uint64_t bytes);
  std::byte* place_in_ring(Lane& lane, std::uint64_t bytes);
  std::byte* place(Lane& lane, std::uint64_t bytes);
  static bool keep_limits(Queue& queue);

  // settle.cpp
  void settle(Lane& lane);
  void pass_decided(Lane& lane, std::uint64_t until);
  void move_floor(Lane& lane, std::uint64_t entry);
  void set_state(Lane& lane, std::uint64_t entry, shm::DeliveryState state, bool let_go);

  // distrust.cpp
  void check_ack_page(Lane& lane);
  void distrust(Lane& lane, const char* why);
  void look_for_cut_files();

  // pump.cpp, retry.cpp, watchdog.cpp
  bool pump(Queue& queue);
  std::uint64_t pump_into(Lane& lane, std::uint64_t most);
  std::uint64_t back_off_ns(const SubscriptionOptions& options, std::uint32_t used);
  bool fail(Lane& lane, std::uint64_t entry, const Failure& failure, std::uint64_t now_ns);
  std::uint64_t append_retry(Queue& queue, const ring::EventParts& event, const Attempt& attempt, const Later& later);
  bool redeliver(Lane& lane, std::uint64_t entry, const Failure& failure, const ring::EventParts& event,
                 Attempt attempt);
  Lane* place_ready(Queue& queue, const shm::RecordHeader& record, std::uint64_t bytes);
  void release(Queue& queue, const shm::RecordHeader& record, const Attempt& attempt, Lane& into, std::uint64_t bytes);
  void release_due(Queue& queue, std::uint64_t now_ns);
  bool complete_late(Lane& lane, std::uint64_t entry);
  void shorten(Queue& queue, log::SegmentLog& log, std::uint64_t& head, std::uint64_t until = ~std::uint64_t{0});
  void shorten_dead(Queue& queue);
  void index_retries(Queue& queue);

  // timing.cpp
  bool route_timed(const Route& route, shm::RecordHeader header, const std::byte* body, std::uint64_t now_ns,
                   bool redoing);
  bool ready_timed(Queue& queue, const ring::EventParts& event, std::uint64_t now_ns, bool redoing);
  bool ready_delayed(Queue& queue, std::uint64_t bytes, bool redoing);
  void put_aside(Queue& queue, const shm::RecordHeader& header, const std::byte* body);
  bool head_in_time(Queue& queue);
  bool expire_later(Queue& queue, std::uint64_t position, const shm::RecordHeader& record);

  // last_values.cpp
  void keep_last_values();
  bool clean_last_values();
  void begin_with_last_values(Queue& queue);
  void redo_clean(Queue& queue);

  // event_ids.cpp
  Familiar is_known(Ingress& ingress, const Route& route, const shm::RecordHeader& header, const std::byte* body,
                    bool redoing);
  bool has_known_id(const shm::RecordHeader& header, const std::byte* body, bool redoing);
  bool note_duplicate(Ingress& ingress);
  void remember_id(const Route& route, const shm::RecordHeader& header, std::uint64_t now_ns, bool redoing);

  // dispatch.cpp
  bool dispatch(Queue& queue);
  bool hand_over(Queue& queue, bool& moved);
  Lane* member_for(Queue& queue, const shm::RecordHeader& record, std::uint64_t bytes);
  void hand(Lane& from, std::uint64_t entry, Lane& to);
  void revoke(Lane& lane);
  void revoke_idle(Queue& queue, std::uint64_t served_ns);

  // operate.cpp
  void set_flags(Queue& queue, bool paused, bool ending, bool burying);
  bool bring_back(Queue& queue);
  bool set_aside(Lane& lane, std::uint64_t entry, bool let_go, std::uint64_t due_ns = 0);
  static void wait_first(Queue& queue, const shm::RecordHeader& record, std::uint64_t position);

  // dispatch_by_key.cpp
  static void count_slot(Queue& queue, const shm::RecordHeader& record, int in_rings, int waiting);
  static void settle_slots(Lane& lane, std::uint64_t until);
  void free_slots(Queue& queue, std::uint64_t number);
  void recover_slots(Queue& queue);
  bool dispatch_by_key(Queue& queue);
  bool unpark(Queue& queue);
  bool park(Queue& queue, const shm::RecordHeader& record, std::uint64_t at);

  // dead_letter.cpp
  bool dead_ready(Queue& queue, std::uint64_t bytes);
  void append_dead(Queue& queue, const ring::EventParts& event, const Attempt& attempt, const Later& later);
  bool give_up(Queue& queue, std::string_view reason);
  bool give_up_later(Queue& queue, std::uint64_t position, const shm::RecordHeader& record, std::string_view reason);
  void bury_pending(Queue& queue);
  bool bury(Lane& lane, std::uint64_t entry, const Failure& failure, const ring::EventParts& event,
            const Attempt& attempt);

  // dead_letter_topic.cpp
  void announce(Queue& queue);
  bool write_letter(const Queue& queue, const shm::RecordHeader& record);
  void open_letters();
  void redo_announce(Queue& queue, std::uint64_t from);
  void check_letter_cycle(const SubscriptionOptions& options) const;

  void sweep_verdicts(Lane& lane, std::uint64_t now_ns);
  static Failure failure_of(const Lane& lane, std::uint64_t entry, const ring::AckSeen& seen);
  void extend(Lane& lane, std::uint64_t entry, const ring::AckSeen& seen, std::uint64_t now_ns) const;
  bool time_out(Lane& lane, std::uint64_t entry, std::uint64_t now_ns);
  void expire(Lane& lane, std::uint64_t now_ns);
  static void adopt_marks(Lane& lane, std::uint64_t served_ns);
  void serve(std::uint64_t now_ns);

  // recover.cpp, redo.cpp
  void recover();
  void recover_publishers();
  void recover_publisher(std::size_t slot);
  struct FoundSubscription;
  void recover_subscriptions(const std::vector<std::string>& files);
  void recover_subscription(FoundSubscription& found);
  void recover_ring(Lane& lane);
  void raise_numbers(const std::vector<std::string>& files);
  [[nodiscard]] bool is_moving(const Queue& queue) const noexcept;
  void recount(Queue& queue, std::vector<Notice>& notes);
  bool holds_events(const std::string& ring_file, const std::string& cursor_file) const;
  void redo();
  void redo_route(std::uint64_t slot, std::uint64_t from, std::uint64_t to);
  void check_redone(const Ingress& ingress, const char* damage) const;
  void redo_pump(Queue& queue, std::uint64_t from);
  void redo_move(Queue& queue, shm::TransactionKind kind, std::uint64_t from, std::uint64_t state);
  void remove_strays(const std::vector<std::string>& files);

  // membership.cpp, subscriptions.cpp
  Lane& lane_for_member(Queue& queue);
  void create_ring(Lane& lane);
  void create_ack_page(Lane& lane, std::uint64_t first, std::uint64_t taken);
  bool attach_ack_page(Lane& lane);
  void map_ring(Lane& lane);
  bool retire_ring(Lane& lane);
  bool try_to_remove(Queue& queue);
  MemberGrant join(std::uint64_t client, Queue& queue, bool made, const control::Identity& owner);
  PublisherGrant open_publisher(std::uint64_t client, const std::string& name, std::uint64_t ring_bytes,
                                shm::PublisherState kind, const control::Identity& owner);
  void map_ingress(Ingress& ingress, const Ingress* of_lead);
  void map_ingress_ring(Ingress& ingress);
  void adopt_topics(Ingress& ingress);
  void withdraw_topics(Ingress& ingress);
  void retire_ingress(Ingress& ingress);
  void check_same_options(const Queue& queue, const SubscriptionOptions& options,
                          const std::vector<std::string>& given) const;
  Queue& add_queue(std::unique_ptr<Queue> queue);
  void save_definition(const Queue& queue);
  std::uint64_t next_file();

  shm::Directory& directory_;
  std::shared_ptr<Peers> peers_;
  control::AccessRules access_;
  shm::Segment segment_;
  shm::ExchangeSegment* page_ = nullptr;
  RouteTable routes_;
  shm::Intent* intents_ = nullptr;  // of this shard
  std::size_t shard_ = 0;
  std::uint64_t generation_ = 0;
  std::uint64_t n_ = 0;          // of the last intent
  std::uint64_t now_ns_ = 0;     // of the last tick; 0: there was none
  std::uint64_t latest_ns_ = 0;  // of ticks and sweeps: the clocks of two threads may differ, a shard's time goes on
  std::uint64_t served_ns_ = 0;  // served time at the last tick
  std::uint64_t clock_ns_ = 0;   // of the last step or tick: by it what waits expires
  std::uint64_t (*retry_clock_)() = nullptr;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
  std::uint64_t full_ring_grace_ns_ = full_ring_grace_ns;
  bool fence_required_ = false;
  bool redone_ = false;           // what a predecessor left open is finished
  bool waits_for_shard_ = false;  // an event has its turn when another shard has come by it

  std::vector<Queue*> touched_;                       // by the open transaction
  std::vector<Lane*> touched_members_;                // … the rings of dispatched subscriptions
  std::vector<Ingress*> hot_;                         // polled
  std::vector<Queue*> active_;                        // with something unsettled
  bool short_of_room_ = false;                        // the last batch ended before an event for which a sink had none
  std::vector<std::unique_ptr<Queue>>& queues_;       // of all shards, by index; removed ones stay empty
  std::vector<std::unique_ptr<Ingress>> publishers_;  // by slot
  std::unique_ptr<LastValues> last_values_;           // if the bus keeps them
  std::unique_ptr<EventIds> event_ids_;               // if the bus keeps them
  std::vector<std::string> client_files_;
  std::vector<Notice> report_;
  std::vector<Offence> offences_;
  std::uint64_t bus_errors_ = 0;                      // as last seen
  bool calls_ = false;                                // the lead is to look after it
  std::vector<std::unique_ptr<Exchange>> followers_;  // of the lead: the other shards
};

}  // namespace ackring::exchange
