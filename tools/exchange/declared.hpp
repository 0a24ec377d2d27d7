// Declared subscriptions: those that the file of settings wants to be there.
#pragma once

#include <vector>

#include "lib/exchange/exchange.hpp"
#include "lib/exchange/notice.hpp"
#include "tools/exchange/config_file.hpp"

namespace ackring::tools {

/// Creates what is not there, changes what the file says is to be changed, and tells `sink` about either, and about what
/// exists and differs. `starting`: throws Failure where one can't be created; else it tells so, and goes on.
/// On the exchange's thread, with all shards held.
void declare_subscriptions(exchange::Exchange& exchange, const std::vector<DeclaredSubscription>& declared,
                           bool starting, const exchange::NoticeSink& sink);

}  // namespace ackring::tools
