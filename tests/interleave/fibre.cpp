#include "tests/interleave/fibre.hpp"

#include <cstdint>
#include <cstdlib>
#include <utility>

namespace ackring::test::interleave {

Fibres::Fibres(std::size_t count, std::function<void(std::size_t)> body) : body_(std::move(body)) {
  for (std::size_t i = 0; i < count; ++i) {
    stacks_.push_back(std::make_unique_for_overwrite<std::byte[]>(stack_bytes));
    contexts_.push_back(std::make_unique<ucontext_t>());
    prepare(static_cast<unsigned>(i));
  }
}

// Apart, since getcontext() is taken for a function that returns twice.
void Fibres::prepare(unsigned index) {
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  ucontext_t& context = *contexts_[index];
  if (::getcontext(&context) != 0) std::abort();
  context.uc_stack.ss_sp = stacks_[index].get();
  context.uc_stack.ss_size = stack_bytes;
  context.uc_link = nullptr;
  // makecontext passes ints only.
  ::makecontext(&context, reinterpret_cast<void (*)()>(&Fibres::start), 3, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self), index);
}

void Fibres::start(unsigned high, unsigned low, unsigned index) {
  auto* self = reinterpret_cast<Fibres*>(static_cast<std::uintptr_t>(high) << 32 | low);
  self->body_(index);
  std::abort();  // a body has no end
}

void Fibres::enter(std::size_t to) { ::swapcontext(&thread_, contexts_[to].get()); }
void Fibres::change(std::size_t from, std::size_t to) { ::swapcontext(contexts_[from].get(), contexts_[to].get()); }
void Fibres::leave(std::size_t from) { ::swapcontext(contexts_[from].get(), &thread_); }

}  // namespace ackring::test::interleave
