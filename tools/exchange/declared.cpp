#include "tools/exchange/declared.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lib/control/subscription_codec.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

using exchange::Notice;

// What counts, whichever way it was said.
SubscriptionOptions normal_form(SubscriptionOptions options) {
  if (options.overflow == Overflow::automatic) {
    options.overflow = options.guarantee == at_least_once ? Overflow::block : Overflow::drop_oldest;
  }
  std::sort(options.patterns.begin(), options.patterns.end());
  return options;
}

// Of what was given: names as definitions have them.
std::vector<std::string> differing(const DeclaredSubscription& declared, const SubscriptionOptions& existing) {
  const SubscriptionOptions wanted = normal_form(declared.options);
  const SubscriptionOptions old = normal_form(existing);
  std::vector<std::string> names;
  if (wanted.patterns != old.patterns) names.emplace_back("patterns");
  for (const auto& option : control::differing_options(wanted, old)) {
    const auto name = option.get<std::string>();
    if (std::find(declared.given.begin(), declared.given.end(), name) != declared.given.end()) names.push_back(name);
  }
  return names;
}

class Declarer {
 public:
  Declarer(exchange::Exchange& exchange, bool starting, const exchange::NoticeSink& sink)
      : exchange_(exchange), starting_(starting), sink_(sink) {}

  void declare(const DeclaredSubscription& declared) {
    const exchange::Queue* queue = exchange_.find_queue(declared.options.name);
    if (queue == nullptr) {
      create(declared);
      return;
    }
    if (queue->ending) {
      tell(Notice::Level::warning, "config.differs", declared, "it was removed, and goes when nothing is left in it");
      return;
    }
    const std::vector<std::string> names = differing(declared, queue->options);
    if (names.empty()) return;
    const std::string keys = fmt::format("{}", fmt::join(names, ", "));
    if (declared.update) {
      update(declared, keys);
    } else {
      tell(Notice::Level::warning, "config.differs", declared,
           "it exists with other values of " + keys + ": they stay (update = true changes them)", keys);
    }
  }

 private:
  void create(const DeclaredSubscription& declared) {
    try {
      exchange_.create_subscription(declared.options, false);
      tell(Notice::Level::info, "subscription.created", declared, "created");
    } catch (const Error& error) {
      // As with all that keeps an exchange from serving: status 1 would say that something asked for is not so.
      const ExitStatus status = status_of(error.code());
      if (starting_)
        throw Failure(status == status_usage ? status : status_refused, declared.where + ": " + error.what());
      tell(Notice::Level::error, "config.not_created", declared, std::string("can't be created: ") + error.what());
    }
  }

  // Some options can't change. A bus that serves with the old ones is better than none.
  void update(const DeclaredSubscription& declared, const std::string& keys) {
    try {
      exchange_.update_subscription(declared.options, declared.given);
      tell(Notice::Level::info, "subscription.updated", declared, "updated: " + keys, keys);
    } catch (const Error& error) {
      tell(Notice::Level::error, "config.not_updated", declared,
           std::string("can't be updated, and stays as it is: ") + error.what(), keys);
    }
  }

  void tell(Notice::Level level, const char* event, const DeclaredSubscription& declared, const std::string& what,
            const std::string& keys = {}) {
    Notice notice{level,
                  event,
                  fmt::format("{}: subscription {}: {}", declared.where, declared.options.name, what),
                  {{"subscription", declared.options.name}, {"where", declared.where}}};
    if (!keys.empty()) notice.fields.emplace_back("keys", keys);
    sink_(notice);
  }

  exchange::Exchange& exchange_;
  const bool starting_;
  const exchange::NoticeSink& sink_;
};

}  // namespace

void declare_subscriptions(exchange::Exchange& exchange, const std::vector<DeclaredSubscription>& declared,
                           bool starting, const exchange::NoticeSink& sink) {
  Declarer declarer(exchange, starting, sink);
  for (const DeclaredSubscription& one : declared) declarer.declare(one);
}

}  // namespace ackring::tools
