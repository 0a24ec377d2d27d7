// The publisher through which the exchange itself publishes dead letters: one for all subscriptions with a dead-letter
// topic, with a ring and a cursor like any other's.
//
// Thread rules: X's thread.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "lib/exchange/ingress.hpp"

namespace ackring::exchange {

/// No client may have this name.
inline constexpr const char* letters_name = "@dead-letters";

struct LetterPublisher {
  Ingress* ingress = nullptr;
  shm::IngressRing* page = nullptr;
  ring::RingWriter writer;
  std::uint64_t sequence = 0;  // of the last event
  std::uint64_t events = 0;    // ever
  std::unordered_map<std::string, std::uint32_t> topics;
  shm::Segment segment;  // the ring, writable
};

}  // namespace ackring::exchange
