#!/usr/bin/env python3
"""mutate.py on snippets: what it breaks, what it leaves alone, and that nothing else changes."""
import re
import sys

sys.dont_write_bytecode = True
import mutate  # noqa: E402

SOURCE = """
#pragma once
class Writer {
 public:
  void commit() { tail_->store(position_, std::memory_order_release); }  // not std::memory_order_acquire
  bool take() {
    const auto seen = tail_->load(std::memory_order_acquire);
    if (seen == 0) return word_.compare_exchange(0, 1, std::memory_order_acquire);
    first_.store(1, std::memory_order_relaxed);
    if (seen != 1) {
      second_.raise(2, std::memory_order_release);
    }
    return true;
  }

 private:
  std::uint64_t position_{0};
};
"""
EXPECTED = [
    "f: release to relaxed: tail_->store(position_, std::memory_order_release)",
    "f: dropped: tail_->store(position_, std::memory_order_release)",
    "f: acquire to relaxed: const auto seen = tail_->load(std::memory_order_acquire)",
    "f: acquire to relaxed: if (seen == 0) return word_.compare_exchange(0, 1, std::memory_order_acquire)",
    "f: dropped: first_.store(1, std::memory_order_relaxed)",
    "f: release to relaxed: second_.raise(2, std::memory_order_release)",
    "f: dropped: second_.raise(2, std::memory_order_release)",
    "f: swapped: first_.store(1, std::memory_order_relaxed) and "
    "if (seen != 1) { second_.raise(2, std::memory_order_release); }",
]


def main():
    mutants = mutate.Mutants()
    mutated = mutate.mutate("f", SOURCE, mutants)
    wrong = []
    if sorted(mutants.all.values()) != sorted(EXPECTED):
        wrong.append(f"the mutants are {mutants.all.values()}")
    # With all switches off the source is what it was: take them away again.
    plain = re.sub(r"\(::ackring_mutants::on\(\d+\) \? [^:]+(?:::\w+)? : ([\w:]+)\)", r"\1", mutated)
    plain = re.sub(r"if \(!::ackring_mutants::on\(\d+\)\)", "", plain)
    while (swap := re.search(r"if \(::ackring_mutants::on\(\d+\)\) \{", plain)) is not None:
        end = mutate.closing(plain, swap.end() - 1) + 1
        plain = plain[: swap.start()] + plain[end:].removeprefix(" ").removeprefix("else ")
    without = [re.sub(r"[\s{}]", "", text) for text in (plain, SOURCE)]
    if without[0] != without[1]:
        wrong.append(f"with all switches off the source is another one:\n{plain}")
    again = mutate.Mutants()
    mutate.mutate("f", SOURCE + SOURCE, again)
    if len(set(again.all.values())) != 2 * len(EXPECTED):
        wrong.append("two mutants have one description")
    print(*wrong, sep="\n")
    print(f"{len(EXPECTED)} mutants, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
