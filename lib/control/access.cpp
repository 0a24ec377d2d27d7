#include "lib/control/access.hpp"

#include <unistd.h>

#include <algorithm>

#include "ackring/error.hpp"
#include "lib/control/pattern_cover.hpp"
#include "lib/control/topic_pattern.hpp"

namespace ackring::control {
namespace {

constexpr std::size_t names_in_advice = 5;

bool any_name(const std::vector<std::string>& patterns, std::string_view name) noexcept {
  return std::any_of(patterns.begin(), patterns.end(),
                     [name](const std::string& pattern) { return name_matches(pattern, name); });
}

template <class T>
bool holds(const std::vector<T>& list, T value) noexcept {
  return std::find(list.begin(), list.end(), value) != list.end();
}

void append(std::vector<std::string>& to, const std::vector<std::string>& from) {
  for (const std::string& one : from) {
    if (!holds(to, one)) to.push_back(one);
  }
}

// "a, b and 3 more"
std::string list_of(const std::vector<std::string>& allowed) {
  std::string text;
  for (std::size_t i = 0; i < std::min(allowed.size(), names_in_advice); ++i) {
    text += (text.empty() ? "" : ", ") + allowed[i];
  }
  if (allowed.size() > names_in_advice) {
    text += " and " + std::to_string(allowed.size() - names_in_advice) + " more";
  }
  return text;
}

Error denied(const std::string& object, const Identity& who, const std::string& verb,
             const std::vector<std::string>& allowed) {
  const std::string why = "the access rules of the bus do not let uid " + std::to_string(who.uid) + " " + verb;
  const std::string advice = allowed.empty() ? "have a rule added that allows it"
                                             : "it may " + list_of(allowed) + ": use that, or have a rule added";
  return Error(ErrorCode::permission, object, why, advice);
}

}  // namespace

Identity Identity::own() {
  Identity identity;
  identity.uid = ::geteuid();
  identity.gid = ::getegid();
  return identity;
}

bool name_matches(std::string_view pattern, std::string_view name) noexcept {
  if (name.starts_with('@') && !pattern.starts_with('@')) return false;
  // As with topics: only the last `*` seen is ever extended.
  std::size_t at = 0;
  std::size_t in_name = 0;
  std::size_t star = std::string_view::npos;
  std::size_t taken_by_star = 0;
  while (in_name < name.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      taken_by_star = in_name;
    } else if (at < pattern.size() && pattern[at] == name[in_name]) {
      ++at;
      ++in_name;
    } else if (star != std::string_view::npos) {
      at = star + 1;
      in_name = ++taken_by_star;
    } else {
      return false;
    }
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

bool Permissions::may_publish(std::string_view topic) const noexcept {
  return everything || std::any_of(publish.begin(), publish.end(),
                                   [topic](const std::string& pattern) { return matches(pattern, topic); });
}

bool Permissions::may_subscribe(std::string_view pattern) const {
  return everything || std::any_of(subscribe.begin(), subscribe.end(),
                                   [pattern](const std::string& allowed) { return covers(allowed, pattern); });
}

bool Permissions::may_join(std::string_view subscription) const noexcept {
  return everything || any_name(join, subscription) || any_name(operate, subscription);
}

bool Permissions::may_operate(std::string_view subscription) const noexcept {
  return everything || any_name(operate, subscription);
}

void Permissions::require_publish(const Identity& who, const std::string& topic) const {
  if (!may_publish(topic)) throw denied("topic '" + topic + "'", who, "publish to it", publish);
}

void Permissions::require_subscribe(const Identity& who, const std::vector<std::string>& patterns) const {
  for (const std::string& pattern : patterns) {
    if (!may_subscribe(pattern)) throw denied("pattern '" + pattern + "'", who, "subscribe to all of it", subscribe);
  }
}

void Permissions::require_join(const Identity& who, const std::string& subscription) const {
  if (may_join(subscription)) return;
  std::vector<std::string> allowed = join;
  append(allowed, operate);
  throw denied("subscription '" + subscription + "'", who, "join it", allowed);
}

void Permissions::require_operate(const Identity& who, const std::string& subscription) const {
  if (!may_operate(subscription)) throw denied("subscription '" + subscription + "'", who, "operate it", operate);
}

bool AccessRule::names(const Identity& who) const noexcept {
  if (uids.empty() && gids.empty()) return true;
  if (holds(uids, who.uid) || holds(gids, who.gid)) return true;
  return std::any_of(who.groups.begin(), who.groups.end(), [this](gid_t group) { return holds(gids, group); });
}

Permissions AccessRules::of(const Identity& who) const {
  Permissions result;
  if (who.uid == 0 || who.uid == ::geteuid()) return result;  // they may open the files of the bus in any case
  bool named = false;
  for (const AccessRule& rule : rules) {
    if (!rule.names(who)) continue;
    named = true;
    append(result.publish, rule.grants.publish);
    append(result.subscribe, rule.grants.subscribe);
    append(result.join, rule.grants.join);
    append(result.operate, rule.grants.operate);
  }
  result.everything = !named && !deny_unnamed;
  return result;
}

}  // namespace ackring::control
