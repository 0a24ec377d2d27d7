#!/usr/bin/env python3
"""The canary: every rule must fire on snippets that break it and stay silent on snippets that keep it.

A checker that finds nothing looks exactly like a tree without faults; this tells the two apart.
"""
import sys
import unittest

import rules

# rule: (list of trees that break it, list of trees that keep it); a tree is {path: text}.
CASES = {
    "layering": (
        [
            {"lib/shm/a.hpp": '#include "lib/ring/b.hpp"\n'},
            {"lib/log/a.cpp": '#include "lib/exchange/b.hpp"\n'},
            {"lib/exchange/a.cpp": '#include "ackring/bus.hpp"\n'},
            {"lib/shm/a.cpp": '#include "segment.hpp"\n'},
            {"lib/ring/a.cpp": '#include "tests/support.hpp"\n'},
            {"lib/client/a.cpp": "#include <spdlog/spdlog.h>\n"},
            {"lib/client/a.cpp": "#include <lib/shm/word.hpp>\n"},
            {"lib/newlayer/a.cpp": '#include "lib/shm/word.hpp"\n'},
            {"include/ackring/a.hpp": '#include "lib/shm/word.hpp"\n'},
            {"examples/a.cpp": '#include "lib/client/connection.hpp"\n'},
            {"tools/a.cpp": '#include "tests/support.hpp"\n'},
        ],
        [
            {"lib/client/a.cpp": '#include "lib/exchange/host.hpp"\n#include "ackring/bus.hpp"\n'},
            {"lib/shm/a.cpp": '#include "ackring/error.hpp"\n#include "lib/shm/a.hpp"\n#include <atomic>\n'},
            {"lib/shm/a.cpp": '// #include "lib/client/b.hpp" would be wrong\n'},
            {"tools/a.cpp": '#include "lib/control/socket.hpp"\n#include <spdlog/spdlog.h>\n'},
            {"examples/a.cpp": "#include <ackring/ackring.hpp>\n"},
        ],
    ),
    "public-headers": (
        [
            {"include/ackring/a.hpp": "std::atomic<int> x;\n"},
            {"include/ackring/a.hpp": "#include <boost/x.hpp>\n"},
            {"include/ackring/a.hpp": "int offset;\n"},
            {"include/ackring/a.hpp": "// an offset in bytes\n"},
        ],
        [{"include/ackring/a.hpp": "int position;\n"}, {"lib/shm/a.hpp": "std::atomic<int> offset;\n"}],
    ),
    "atomics-below": (
        [
            {"lib/client/a.hpp": "std::atomic<bool> stop_;\n"},
            {"lib/exchange/a.hpp": "#include <atomic>\n"},
            {"lib/log/a.cpp": "std::atomic_thread_fence(std::memory_order_seq_cst);\n"},
        ],
        [
            {"lib/shm/a.hpp": "#include <atomic>\nstd::atomic<bool> stop_;\n"},
            {"lib/ring/a.hpp": "std::atomic<bool> stop_;\n"},
            {"lib/client/a.hpp": "// no std::atomic here\n"},
            {"tests/a.cpp": "std::atomic<bool> stop_;\n"},
        ],
    ),
    "named-orders": (
        [
            {"lib/shm/a.cpp": "auto x = word.load();\n"},
            {"lib/shm/a.cpp": "word->store(1);\n"},
            {"lib/shm/a.cpp": "word.fetch_add(\n    1);\n"},
            {"lib/shm/a.cpp": "w.compare_exchange_strong(a, b);\n"},
            {"tests/a.cpp": "std::atomic<int> n{0};\nn++;\n"},
            {"tests/a.cpp": "std::atomic<int> n = 0;\n++n;\n"},
            {"tests/a.cpp": "std::atomic<bool> stop{false};\nstop = true;\n"},
            {"tests/a.cpp": "std::atomic<bool> stop{false};\nwhile (!stop) {\n}\n"},
        ],
        [
            {"lib/shm/a.cpp": "word.store(1, std::memory_order_relaxed);\n"},
            {"lib/shm/a.cpp": "word.store(f(1, 2),\n           std::memory_order_release);\n"},
            {"lib/shm/a.cpp": "T load(std::memory_order order) { return value_.load(order); }\n"},
            {"lib/shm/a.cpp": 'fd_ = std::exchange(other.fd_, -1);  // word.load()\nauto s = "word.load()";\n'},
            {"tests/a.cpp": "std::atomic<int> n = 0;\nif (n.load(std::memory_order_relaxed) == 1) {\n}\n"},
        ],
    ),
    "labelled-orders": (
        [
            {"lib/ring/a.cpp": "w.store(1, std::memory_order_release);\n"},
            {"lib/ring/a.cpp": "w.load(std::memory_order_acquire);  // sees the record\n"},
            {"lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // acquire(tail): the wrong kind\n"},
            {"lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail)\n"},
            {"lib/ring/a.cpp": "w.fetch_add(1, std::memory_order_acq_rel);  // release(a.b): half of it only\n"},
            {"lib/ring/a.cpp": "std::atomic_thread_fence(std::memory_order_seq_cst);\n"},
            {"lib/ring/a.cpp": "w.load(std::memory_order_consume);  // acquire(x): not a real order\n"},
            {"lib/ring/a.cpp": "// release(tail): of another statement\nint x;\nw.store(1, std::memory_order::release);\n"},
        ],
        [
            {"lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail): the records before it\n"},
            {"lib/ring/a.cpp": "// release(tail): the records\n// before it.\nw.store(1, std::memory_order_release);\n"},
            {"lib/ring/a.cpp": "w.store(1,\n  std::memory_order_release);  // release(tail): the records before it\n"},
            {"lib/ring/a.cpp": "// release(tail): the records\nw.store(1,\n  std::memory_order_release);\n"},
            {"lib/ring/a.cpp": "w.fetch_add(1, std::memory_order_acq_rel);  // acq_rel(a.b): takes and gives it\n"},
            {"lib/ring/a.cpp": "fence(std::memory_order_seq_cst);  // seq_cst(park) both sides fence\n"},
            {"tests/a.cpp": "w.load(std::memory_order_acquire);\n"},
        ],
    ),
    "paired-labels": (
        [
            {"lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail): the records\n"},
            {"lib/ring/a.cpp": "w.load(std::memory_order_acquire);  // acquire(tail): the records\n"},
            {
                "lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail): the records\n",
                "tests/a.cpp": "w.load(std::memory_order_acquire);  // acquire(tail): a test is no partner\n",
            },
            {
                "lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail): the records\n",
                "lib/ring/b.cpp": "// acquire(tail): a comment alone is no partner\n",
            },
        ],
        [
            {
                "lib/ring/a.cpp": "w.store(1, std::memory_order_release);  // release(tail): the records\n",
                "tools/b.cpp": "w.load(std::memory_order_acquire);  // acquire(tail): the records\n",
            },
            {"lib/ring/a.cpp": "w.exchange(1, std::memory_order_acq_rel);  // acq_rel(lock): what it guards\n"},
            {"lib/shm/a.cpp": "fence(std::memory_order_seq_cst);  // seq_cst(park): both sides fence\n"},
        ],
    ),
    "relaxed-reasons": (
        [
            {"lib/ring/a.cpp": "w.load(std::memory_order_relaxed);\n"},
            {"lib/ring/a.cpp": "w.load(std::memory_order_relaxed);  // the tail\n"},
            {"lib/ring/a.cpp": "// relaxed: of the paragraph above\nint x;\n\nw.load(std::memory_order_relaxed);\n"},
        ],
        [
            {"lib/ring/a.cpp": "w.load(std::memory_order_relaxed);  // relaxed: this thread wrote it\n"},
            {"lib/ring/a.cpp": "// relaxed: own words\na.load(std::memory_order_relaxed);\nb.load(std::memory_order_relaxed);\n"},
        ],
    ),
    "file-length": (
        [{"lib/ring/a.cpp": "int x;\n" * 401}, {"tests/tidy/a.py": "x = 1\n" * 401}],
        [{"lib/ring/a.cpp": "int x;\n" * 400}, {"docs/a.md": "text\n" * 401}],
    ),
    "machine-paths": (
        [{"docs/a.md": "see /ho" + "me/someone/file\n"}, {"scripts/a": "cd /ro" + "ot/project\n"}],
        [{"docs/a.md": "see /dev/shm/ackring-1000/orders\n"}, {"docs/a.md": "docs/homepage and src/home\n"}],
    ),
    "shared-structs": (
        [
            {"lib/shm/format.hpp": "struct Sink {\n};\n", "docs/shm-format.md": "<!-- layout:Sink -->"},
            {"lib/shm/format.hpp": "struct Sink {\n};\n", "lib/shm/format_fields.hpp": "  S(Sink, 16) \\\n"},
        ],
        [
            {
                "lib/shm/format.hpp": "struct Sink {\n};\n",
                "lib/shm/format_fields.hpp": "  S(Sink, 16) \\\n",
                "docs/shm-format.md": "<!-- layout:Sink -->",
            },
        ],
    ),
}


def findings(rule, tree):
    return list(rules.RULES[rule]([rules.File(path, text) for path, text in tree.items()]))


class Canary(unittest.TestCase):
    def test_every_rule_has_a_canary(self):
        self.assertEqual(set(CASES), set(rules.RULES))
        for rule, (bad, good) in CASES.items():
            self.assertTrue(bad and good, rule)

    def test_rules_fire(self):
        for rule, (bad, _) in CASES.items():
            for tree in bad:
                with self.subTest(rule=rule, tree=tree):
                    self.assertTrue(findings(rule, tree), "the rule did not fire")

    def test_rules_stay_silent(self):
        for rule, (_, good) in CASES.items():
            for tree in good:
                with self.subTest(rule=rule, tree=tree):
                    self.assertEqual(findings(rule, tree), [])

    def test_a_finding_names_its_line(self):
        text = "int x;\n\nauto y = word.load();\n"
        self.assertEqual([finding[:2] for finding in findings("named-orders", {"lib/shm/a.cpp": text})], [("lib/shm/a.cpp", 3)])


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
