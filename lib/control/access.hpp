// Access rules: which users may publish, subscribe and operate what on a bus. Who somebody is, the kernel says
// (Socket::identity()); what the rules mean for users is in docs/access.md.
//
// Thread rules: plain values; any thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace ackring::control {

/// A user, as the credentials of a connection say.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary ones, the first shm::max_peer_groups of them

  bool operator==(const Identity&) const = default;
  /// This process's own, without its supplementary groups.
  [[nodiscard]] static Identity own();
};

/// What one user may do: all that any of the lists allows. `everything`: the lists do not count.
struct Permissions {
  bool everything = true;
  std::vector<std::string> publish;    // patterns
  std::vector<std::string> subscribe;  // patterns
  std::vector<std::string> join;       // names of subscriptions, `*` in them is any run of characters
  std::vector<std::string> operate;    // … which includes joining

  [[nodiscard]] bool may_publish(std::string_view topic) const noexcept;
  /// Is the whole of `pattern` covered by one pattern of `subscribe`?
  [[nodiscard]] bool may_subscribe(std::string_view pattern) const;
  [[nodiscard]] bool may_join(std::string_view subscription) const noexcept;
  [[nodiscard]] bool may_operate(std::string_view subscription) const noexcept;

  // The same as refusals. They throw Error (permission), which names the object, the user and what to do.
  void require_publish(const Identity& who, const std::string& topic) const;
  void require_subscribe(const Identity& who, const std::vector<std::string>& patterns) const;
  void require_join(const Identity& who, const std::string& subscription) const;
  void require_operate(const Identity& who, const std::string& subscription) const;
};

/// One rule of a file. It names who is in one of the two lists, and everybody where both are empty.
struct AccessRule {
  std::vector<uid_t> uids;
  std::vector<gid_t> gids;
  Permissions grants{.everything = false, .publish = {}, .subscribe = {}, .join = {}, .operate = {}};

  [[nodiscard]] bool names(const Identity& who) const noexcept;
};

/// The rules of a bus. Without any, everybody may do everything.
struct AccessRules {
  bool deny_unnamed = false;  // those whom no rule names may do nothing, not everything
  std::vector<AccessRule> rules;

  /// What `who` may do: what all rules that name it grant together. Root and the exchange's own user may do everything.
  [[nodiscard]] Permissions of(const Identity& who) const;
};

/// Does a name of a rule, with `*` for any run of characters, stand for this subscription? Names that begin with `@`
/// are meant only where that is written out.
[[nodiscard]] bool name_matches(std::string_view pattern, std::string_view name) noexcept;

/// All publish patterns of a file of rules together: they go to a client in one message.
inline constexpr std::size_t most_publish_pattern_bytes = 32u << 10;

}  // namespace ackring::control
