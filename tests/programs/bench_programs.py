"""shmtool bench: a group of programs_test.py. Tiny counts: that it works and what it says, not how fast it is."""
import csv
import json
import pathlib
import re
import shutil
import signal
import unittest

import programs_support
from programs_support import Programs


class Bench(Programs):
    KEYS = ["mode", "size", "publishers", "subscribers", "guarantee", "count", "seconds", "events_per_s", "deliveries_per_s",
            "bytes_per_s", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "cacheline_rtt_ns", "lost", "duplicates", "machine",
            "p9999_ns", "members", "rate", "late_p50_ns", "late_p99_ns", "shards", "wait", "regime"]

    def results(self, *arguments):
        results = [json.loads(line) for line in self.tool("bench", *arguments, "--json").splitlines()]
        for result in results:
            closed_loop = result["mode"] == "latency" and result["rate"] == 0
            self.assertEqual([key for key in result if key != "regime_changed"],
                             self.KEYS + (["bare_rings_ns"] if closed_loop else []))
            self.assertGreater(result.get("bare_rings_ns", 1), 0)
            self.assertEqual((result["lost"], result["duplicates"]), (0, 0))
            percentiles = [result[key] for key in ("p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns")]
            self.assertEqual(percentiles, sorted(percentiles))
            self.assertGreater(result["seconds"], 0)
            self.assertIn(result["regime"], ("near", "far", "changed"))
        return results

    def result(self, *arguments):
        results = self.results(*arguments)
        self.assertEqual(len(results), 1)
        return results[0]

    def refused(self, reason, *arguments, status=2):
        self.tool("bench", *arguments, status=status)
        self.assertIn(reason, self.error)

    def leftovers(self):
        return {path.name for parent in ("/dev/shm", "/tmp") for path in pathlib.Path(parent).glob("ackring-bench-*")}

    def test_small(self):
        self.assertEqual(self.result("latency", "--count", "2000", "--size", "64")["count"], 2000)
        result = self.result("throughput", "--count", "20000", "--publishers", "2", "--subscribers", "2", "--size", "0")
        self.assertEqual(result["publishers"], 2)
        result = self.result("throughput", "--count", "5000", "--guarantee", "at-most-once", "--wait", "park")
        self.assertEqual(result["wait"], "park")
        self.assertEqual(self.result("fanout", "--count", "5000")["subscribers"], 4)
        text = self.tool("bench", "latency", "--count", "100").decode()
        for word in ("round trips", "p99.99", "governor", "waiting: adaptive", "one cache line there and back"):
            self.assertIn(word, text)

    def test_open_loop(self):
        result = self.result("latency", "--count", "200", "--rate", "2000")
        self.assertEqual((result["count"], result["rate"]), (200, 2000))
        self.result("latency", "--count", "100", "--rate", "2000", "--one-thread", "--warm-up", "0")
        result = self.result("latency", "--count", "201", "--rate", "2000", "--publishers", "3", "--subscribers", "2",
                             "--members", "2", "--warm-up", "10", "--size", "0")
        self.assertEqual((result["count"], result["publishers"], result["members"]), (201, 3, 2))
        self.assertGreaterEqual(result["p50_ns"], 1)

    def test_shapes(self):
        result = self.result("throughput", "--count", "3000", "--publishers", "2", "--subscribers", "2", "--members", "3")
        self.assertAlmostEqual(result["deliveries_per_s"] / result["events_per_s"], 2)
        self.result("fanout", "--count", "50", "--publishers", "4", "--subscribers", "24", "--warm-up", "10")
        self.result("throughput", "--count", "20", "--size", "1MiB", "--subscribers", "2")
        self.result("throughput", "--count", "200000", "--default-limits", "--subscribers", "2")

    def test_sizes_and_tables(self):
        table = f"{self.directory}/table.hgrm"
        lines = f"{self.directory}/lines.csv"
        results = self.results("latency", "--count", "500", "--bytes", "0,64,4KiB", "--hdr", table, "--csv", lines)
        self.assertEqual([result["size"] for result in results], [0, 64, 4096])
        with open(lines, encoding="ascii") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([(row["size"], row["count"]) for row in rows], [("0", "500"), ("64", "500"), ("4096", "500")])
        self.assertEqual([int(row["p99_ns"]) for row in rows], [result["p99_ns"] for result in results])
        text = pathlib.Path(f"{self.directory}/table-64.hgrm").read_text(encoding="ascii").splitlines()
        self.assertEqual(text[0].split(), ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"])
        self.assertRegex(text[-4], r"^ *\d+\.000 1\.000000000000 +500$")
        self.assertTrue(text[-2].startswith("#[Max     =") and text[-1].startswith("#[Buckets ="), text[-3:])
        self.assertEqual(len(self.results("throughput", "--sweep", "--count", "20")), 11)

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed")
    def test_plots(self):
        paths = [f"{self.directory}/{name}.svg" for name in ("percentiles", "sizes")]
        self.results("latency", "--count", "500", "--bytes", "0,64", "--plot", paths[0], "--plot-sizes", paths[1])
        for path in paths:
            self.assertRegex(pathlib.Path(path).read_text(encoding="utf-8"), re.compile(r"<svg\b.*</svg>", re.DOTALL))

    def test_without_gnuplot(self):
        self.environment["PATH"] = self.directory
        self.refused("gnuplot-nox", "latency", "--count", "10", "--plot", f"{self.directory}/p.svg", status=3)

    def test_scale(self):
        result = json.loads(self.tool("bench", "scale", "--count", "500", "--rounds", "2", "--idle-subscriptions", "20",
                                      "--holders", "2", "--topics", "30", "--random-topics", "--idle-topics", "9",
                                      "--other-patterns", "70", "--backlog", "1500",
                                      "--unacked", "100", "--json"))
        self.assertEqual([result[key] for key in ("mode", "count", "rounds", "idle_subscriptions", "holders", "topics",
                                                  "topic_order", "idle_topics", "other_patterns", "backlog", "unacked")],
                         ["scale", 500, 2, 20, 2, 30, "random", 9, 70, 1500, 100])
        self.assertLessEqual(result["ratio_min"], result["ratio"])
        self.assertLessEqual(result["ratio"], result["ratio_max"])
        self.assertGreater(result["plain_events_per_s"], 0)
        text = self.tool("bench", "scale", "--count", "500", "--rounds", "1", "--idle-subscriptions", "3").decode()
        self.assertRegex(text, r"ratio +\d+\.\d{3} \(median of 1 rounds")

    def test_large(self):
        lines = f"{self.directory}/large.csv"
        results = [json.loads(line) for line in self.tool("bench", "large", "--count", "20", "--rounds", "1", "--bytes",
                                                          "64KiB,1MiB", "--subscribers", "1,2", "--json", "--csv", lines)
                   .splitlines()]
        self.assertEqual([(result["size"], result["subscribers"]) for result in results],
                         [(65536, 1), (65536, 2), (1048576, 1), (1048576, 2)])
        for result in results:
            self.assertAlmostEqual(result["ratio"], result["events_per_s"] / result["memcpy_events_per_s"])
        self.assertEqual(len(pathlib.Path(lines).read_text(encoding="ascii").splitlines()), 5)
        for option in ((), ("--processes",)):
            self.assertIn(b"ratio", self.tool("bench", "large", "--count", "20", "--rounds", "1", "--bytes", "64KiB",
                                              *option))

    def test_large_beside_small(self):
        lines = f"{self.directory}/small.csv"
        result = json.loads(self.tool("bench", "large", "--count", "20", "--rounds", "1", "--bytes", "1MiB",
                                      "--subscribers", "2", "--small-rate", "1000", "--json", "--csv", lines))
        self.assertEqual((result["small_rate"], result["clients"]), (1000, "one thread"))
        self.assertLessEqual(result["small_alone_p50_ns"], result["small_alone_p99_ns"])
        self.assertLessEqual(result["small_beside_p50_ns"], result["small_beside_p99_ns"])
        self.assertGreater(result["batch_ns"], 10_000)  # 2 MiB in less would be 200 GB/s
        self.assertIn("small_beside_p99_ns", pathlib.Path(lines).read_text(encoding="ascii").splitlines()[0])
        text = self.tool("bench", "large", "--count", "20", "--rounds", "1", "--bytes", "64KiB", "--small-rate", "1000")
        self.assertIn(b"small events: p50", text)

    def test_waiting(self):
        small = ("waiting", "--count", "30", "--rounds", "3", "--rate", "2000", "--idle", "20ms")
        result = json.loads(self.tool("bench", *small, "--json"))
        self.assertEqual([key for key in result if key != "regime_changed"],
                         ["mode", "size", "rate", "count", "rounds", "p50_ns", "p99_ns", "bare_p50_ns", "bare_p99_ns", "ratio",
                          "ratio_min", "ratio_max", "exchange_cpu", "client_cpu", "bare_exchange_cpu", "bare_client_cpu",
                          "exchange_idle_cpu", "client_idle_cpu", "lost", "duplicates", "ratios", "cacheline_rtt_ns", "regime",
                          "wait", "machine"])
        self.assertEqual([result[key] for key in ("mode", "size", "rate", "count", "rounds", "wait", "lost", "duplicates")],
                         ["waiting", 64, 2000, 30, 3, "park", 0, 0])
        self.assertEqual(sorted(result["ratios"]), [result["ratio_min"], result["ratio"], result["ratio_max"]])
        # Whoever is woken, and counts, runs; whoever only watches a clock meanwhile sleeps.
        for key in ("p50_ns", "bare_p50_ns", "exchange_cpu", "client_cpu", "bare_exchange_cpu", "bare_client_cpu"):
            self.assertGreater(result[key], 0, key)
        text = self.tool("bench", *small, "--wait", "adaptive", "--size", "1KiB").decode()
        for word in ("waiting: adaptive", "30 events of 1024 bytes", "two bare wake-ups", "median of 3 rounds", "idle: exchange"):
            self.assertIn(word, text)

    def test_wrong_usage(self):
        for reason, *arguments in (
                ("--rate", "throughput", "--rate", "5"), ("core", "latency", "--cpu", "5000"),
                ("go with a --rate", "latency", "--publishers", "2"), ("go with a --rate", "latency", "--one-thread"),
                ("leave one of them out", "latency", "--rate", "5", "--one-thread", "--members", "2"),
                ("'x' is not a size", "latency", "--bytes", "64,x"), ("is not a size", "latency", "--bytes", ""),
                ("excludes", "latency", "--bytes", "64", "--sweep"), ("excludes", "latency", "--size", "64", "--sweep"),
                ("needs several sizes", "throughput", "--plot-sizes", "x.svg"),
                ("more than 1,024", "fanout", "--subscribers", "256", "--members", "5"),
                ("--rate", "waiting", "--rate", "0"), ("--idle", "waiting", "--idle", "soon"),
                ("'0' is below 1", "large", "--bytes", "0"), ("--subscribers", "large", "--subscribers", "0"),
                ("--small-rate", "large", "--small-rate", "0"),
                ("--topics", "scale", "--topics", "0"), ("--holders", "scale", "--holders", "65"),
                ("--warm-up", "latency", "--warm-up", "many")):
            self.refused(reason, *arguments)
        self.refused("can't write it", "latency", "--count", "10", "--hdr", "/nonexistent/table", status=3)

    def test_attach(self):
        self.exchange()
        self.result("throughput", "--count", "5000", "--attach")
        self.assertEqual(sum(publisher["committed"] for publisher in self.stat()["publishers"]), 5000)
        self.result("throughput", "--count", "500", "--members", "2", "--attach")
        self.assertEqual(self.stat()["subscriptions"], [])

    def test_interrupt_leaves_nothing(self):
        for mode in (("throughput", "--count", "1000000000"), ("scale", "--rounds", "1000")):
            before = self.leftovers()
            process = self.start(programs_support.ARGUMENTS.shmtool, "bench", *mode)
            self.wait_until(lambda seen=before: self.leftovers() - seen, "the private bus is there")
            process.send_signal(signal.SIGINT)
            self.finish(process, status=1)
            self.assertEqual(self.leftovers() - before, set())
