// The definition file of a subscription: its name, patterns and options, and how far it has come in its life.
//
// Thread rules: plain functions; any thread.
#pragma once

#include <string>

#include "ackring/options.hpp"

namespace ackring::exchange {

struct Life {
  bool ephemeral = false;
  bool paused = false;
  bool ending = false;
  bool burying = false;
  bool beginning = false;
};

[[nodiscard]] std::string definition_text(const SubscriptionOptions& options, const Life& life = {});

}  // namespace ackring::exchange
