// What the processes of a flow tell each other while it runs: how many events each member has taken, and when the first
// event is due.
//
// Thread rules: each word has one writer: the member, or the process that starts the flow. Anyone reads.
#pragma once

#include <cstdint>

#include "lib/shm/word.hpp"

namespace ackring::tools {

class Progress {
 public:
  /// Memory that children of this process share with it. Throws Failure.
  explicit Progress(unsigned members);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void set_taken(unsigned member, std::uint64_t events) noexcept;
  /// Of `members` members from `first` on, together.
  [[nodiscard]] std::uint64_t taken(unsigned first, unsigned members) const noexcept;

  /// Set once, before the first event.
  void set_start(std::uint64_t start_ns) noexcept;
  /// 0: not set yet.
  [[nodiscard]] std::uint64_t start_ns() const noexcept;

 private:
  struct alignas(64) Line {
    shm::Word<std::uint64_t> value;
  };
  Line* lines_;  // the start, then the members
  std::size_t bytes_;
};

}  // namespace ackring::tools
