// Service: the exchange's side of the control protocol: who is connected, what they ask, who has died.
//
// A request with an `id` is answered under it; one without is carried out and not answered. Nobody's socket is waited for:
// the answer to a client that does not read is kept, one at most, and its next requests stay where they are until then.
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ackring/error.hpp"
#include "lib/control/socket.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/inspect.hpp"
#include "lib/exchange/notice.hpp"
#include "lib/exchange/users.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::exchange {

/// What a request is answered with.
struct Reply {
  control::Json body = control::Json::object();
  std::vector<shm::UniqueFd> descriptors;
};

/// An answer too large for a message: `content` in a file of memory. Throws Error (no_space).
Reply document_reply(const std::string& what, std::string_view content);

/// One client incarnation: a process's connection to the bus. It may be away for a while and come back.
struct Client {
  control::Socket socket;       // closed while it is away
  std::optional<Reply> unsent;  // it did not read the answers before this one; until it does, its requests wait
  std::uint64_t id = 0;         // 0 before hello
  std::string name;
  control::Identity identity;  // of one who has not come back since X started: the user alone
  shm::UniqueFd lock_file;     // another description of its lock file, to look at the lock
  std::shared_ptr<User> user;  // nullptr: of X's own user
  std::uint64_t heard_ns = 0;  // when its last request came
  bool held = false;           // its socket is not looked at until its user's account allows it
};

class Service {
 public:
  /// `sink` is told who comes and goes, what was refused, and what was done to subscriptions.
  Service(shm::Directory& directory, Exchange& exchange, std::string bus, int epoll_fd, NoticeSink sink = {});
  ~Service();

  /// Refuses those that have too many connections, saying so.
  void accept(control::Socket socket, std::uint64_t now_ns);
  /// Something came from, or happened to, a client's connection, named by its descriptor.
  void serve(int fd);
  /// A doorbell rang.
  void rang_publisher(std::uint64_t slot);
  void rang_queue(std::uint64_t index, std::uint64_t member);
  /// Events flow until then: who has overdrawn his account is not served before.
  void events_flow_until(std::uint64_t ns) noexcept { flowing_until_ns_ = ns; }
  /// Looks for deaths among clients that are away, and closes the connections of those that say nothing or were caught.
  void tick(std::uint64_t now_ns);
  [[nodiscard]] bool needs_tick() const noexcept { return !away_.empty() || !held_.empty(); }
  /// Tells everybody that the exchange goes.
  void close_all();

  static std::string lock_name(std::uint64_t client);

 private:
  using Json = control::Json;

  struct Newcomer {
    int fd;
    std::uint64_t until_ns;
  };

  // service.cpp: connections
  void watch_again();
  void look_for_deaths();
  bool look_at(std::uint64_t client);
  void close_offenders();
  void close_silent(std::uint64_t now_ns);
  bool answer(int fd, Client& client, Reply reply);
  void drop(int fd, const std::string& why);
  void let_go_of(std::uint64_t client);
  shm::Bell new_bell(std::uint64_t tag, const std::shared_ptr<User>& user, Reply& reply);

  // requests.cpp
  void handle(int fd, Client& client, control::Message& message);
  Reply hello(Client& client, const Json& request);
  Reply publisher(Client& client, const Json& request);
  Reply publisher_close(Client& client, const Json& request);
  Reply subscribe(Client& client, const Json& request);
  Reply unsubscribe(Client& client, const Json& request);
  Reply settle(Client& client, const Json& request);
  Reply subscription(Client& client, const std::string& op, const Json& request);
  void remove(Queue& queue, const std::string& pending, Reply& reply);
  Reply stat();
  Reply dead_letters(const Client& client, const std::string& op, const Json& request);  // dlq_requests.cpp
  Lane& lane_of(Client& client, const Json& request);

  // access_checks.cpp: they throw Error (permission)
  [[nodiscard]] control::Permissions permissions_of(const Client& client) const;
  static void check_same_user(const Client& before, const Client& client);
  void check_may_publish(const Client& client) const;
  void check_resumed(const Client& client, Ingress& ingress);
  void check_resumed(const Client& client, Lane& lane);
  void check_subscribe(const Client& client, const SubscriptionOptions& options, bool ephemeral);
  void check_define(const Client& client, const SubscriptionOptions& options, const std::vector<std::string>& given);
  void check_operate(const Client& client, const std::string& subscription) const;

  // inspect_requests.cpp
  Reply inspect(const Client& client, const std::string& op, const Json& request);
  static Reply peek_queue(const Queue& queue, const InspectCursor& from, const Json& request);
  Reply explain_event(const Queue& queue, const InspectCursor& from, const Json& request, std::uint64_t now_ns) const;
  static bool is_routed(const Wanted& wanted, const std::string& publisher, const Exchange& shard);
  void add_client(Json& member) const;

  // service_notices.cpp
  void tell_joined(const Client& client, bool again) const;
  void tell_turned_away(const Client& client, const std::string& why) const;
  void tell_dropped(const Client& client, const std::string& why) const;
  void tell_gone(const Client& client);
  void tell_refused(const Client& client, const Json& request, const Error& error) const;
  void tell_publisher(const Client& client, const Ingress& ingress, const char* event, const char* how) const;
  void tell_member(const Client& client, const Queue& queue, const char* event, const char* how) const;
  void tell_subscription(const Client& client, const std::string& name, const char* event, const char* what) const;
  void tell_operated(const Client& client, const std::string& op, const Json& request) const;

  shm::Directory& directory_;
  Exchange& exchange_;
  std::string bus_;
  int epoll_fd_;
  NoticeSink sink_;
  std::unordered_map<int, std::unique_ptr<Client>> connected_;       // by socket
  std::unordered_map<std::uint64_t, std::unique_ptr<Client>> away_;  // by id
  std::deque<std::uint64_t> to_look_at_;                             // of away_, in turns; some have come back
  std::deque<Newcomer> newcomers_;                                   // who has yet to say hello, oldest first
  std::vector<int> held_;                                            // sockets of those who have overdrawn
  std::uint64_t flowing_until_ns_ = 0;
  Users users_;
};

/// What an epoll event is about: the kind in the upper half, a number in the lower. Of a member's bell: the index of its
/// queue and, in the lowest 16 bits, its number in there.
enum class Source : std::uint64_t { listener = 1, stop = 2, client = 3, publisher = 4, queue = 5 };
inline std::uint64_t tag(Source source, std::uint64_t number) {
  return static_cast<std::uint64_t>(source) << 32 | number;
}

}  // namespace ackring::exchange
