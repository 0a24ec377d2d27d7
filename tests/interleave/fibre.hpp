// Fibres: functions with stacks of their own that run on one thread, one at a time, by ucontext.
//
// Thread rules: a set of fibres belongs to one thread.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace ackring::test::interleave {

class Fibres {
 public:
  /// `body(i)` is what fibre i does, without end: it must not return.
  Fibres(std::size_t count, std::function<void(std::size_t)> body);
  Fibres(const Fibres&) = delete;
  Fibres& operator=(const Fibres&) = delete;

  /// From the thread: enters fibre `to`; returns when a fibre calls leave().
  void enter(std::size_t to);
  /// From fibre `from`: goes on with fibre `to`.
  void change(std::size_t from, std::size_t to);
  /// From fibre `from`: back to the thread. The next change to it goes on behind this call.
  void leave(std::size_t from);

 private:
  void prepare(unsigned index);
  static void start(unsigned high, unsigned low, unsigned index);

  static constexpr std::size_t stack_bytes = 256 * 1024;
  std::function<void(std::size_t)> body_;
  std::vector<std::unique_ptr<std::byte[]>> stacks_;
  std::vector<std::unique_ptr<ucontext_t>> contexts_;
  ucontext_t thread_{};
};

}  // namespace ackring::test::interleave
