// What the exchange hands out to clients, and what it holds against them.
#pragma once

#include <cstdint>
#include <string>

namespace ackring::exchange {

struct Lane;
struct Queue;

/// What a publisher's client gets.
struct PublisherGrant {
  std::uint16_t slot = 0;
  std::uint64_t incarnation = 0;
  std::string name;
  std::uint64_t next_sequence = 1;
  std::string ring_file;    // writable for the client
  std::string cursor_file;  // read-only for the client
};

/// What a member's client gets.
struct MemberGrant {
  Queue* queue = nullptr;
  Lane* lane = nullptr;
  std::uint64_t entry = 0;     // first entry to take
  std::uint64_t position = 0;  // where its record is looked for
  std::string ring_file;       // read-only for the client
  std::string ack_file;        // writable for the client
};

/// A client that has written what no client writes. What it shared by that is gone already.
struct Offence {
  std::uint64_t client = 0;
  std::string why;  // for it to read before its connection is closed
};

}  // namespace ackring::exchange
