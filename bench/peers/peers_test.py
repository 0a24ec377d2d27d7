#!/usr/bin/env python3
"""Runs the driver of bench/peers for a moment, for the peers that need no server and no library of their own, and holds its
result against what it must say: exact counts, nothing lost, and medians that are those of its rounds.

  peers_test.py PEERS_PROGRAM EXCHANGE_PROGRAM RENDER_SCRIPT
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import unittest

NAMES = ["ackring", "boost-mq", "posix-mq", "unix-seqpacket"]
MODES = ["blocking", "polling"]
COUNT = 200
PROGRAM, EXCHANGE, RENDER = sys.argv[1:4]


def run(*arguments, exchange=EXCHANGE):
    return subprocess.run([PROGRAM, "--exchange", exchange, *arguments], capture_output=True, text=True, timeout=60)


class Peers(unittest.TestCase):
    def test_result(self):
        with tempfile.TemporaryDirectory() as directory:
            output = pathlib.Path(directory) / "result.json"
            done = run("--peers", ",".join(NAMES), "--rounds", "1", "--count", str(COUNT), "--commit", "abc", "--output",
                       str(output))
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(output.read_text(encoding="utf-8"))
            rendered = subprocess.run([sys.executable, RENDER, output], capture_output=True, text=True, timeout=60)
            self.assertEqual(rendered.returncode, 0, rendered.stderr)
        self.assertEqual(result["failures"], [])
        self.assertEqual((result["commit"], result["rounds"], result["count"]), ("abc", 1, COUNT))
        self.assertIn(result["regime"], ("near", "far", "changing"))
        self.assertGreater(result["cacheline_rtt_ns"], 0)
        for key in ("cpu", "cores", "kernel", "governor"):
            self.assertIn(key, result["machine"])
        self.assertEqual(sorted((peer["name"], peer["mode"]) for peer in result["peers"]),
                         [(name, mode) for name in NAMES for mode in MODES])
        for peer in result["peers"]:
            with self.subTest(peer=peer["name"], mode=peer["mode"]):
                self.check_peer(peer, rounds=1, count=COUNT)
                self.assertIn(f"| {peer['name']} | {peer['mode']} | ", rendered.stdout)

    def check_peer(self, peer, rounds, count):
        self.assertEqual(peer["brokered"], peer["name"] == "ackring")
        self.assertEqual(peer["acked"], peer["name"] == "ackring")
        self.assertTrue(peer["settings"] and peer["version"])
        for measure in ("round_trip", "throughput", "fan_out"):
            results = peer[measure]["rounds"]
            self.assertEqual([result["round"] for result in results], list(range(1, rounds + 1)))
            for key in results[0]:
                if key != "round":
                    self.assertAlmostEqual(peer[measure][key], statistics.median(result[key] for result in results))
            for result in results:
                self.assertGreater(result["cacheline_rtt_ns"], 0)
        for result in peer["round_trip"]["rounds"]:
            self.assertEqual(result["count"], count)
            self.assertTrue(0 < result["p50_ns"] <= result["p99_ns"] <= result["max_ns"], result)
        for measure, receivers in (("throughput", 1), ("fan_out", 4)):
            for result in peer[measure]["rounds"]:
                self.assertEqual(result["published"], count)
                self.assertEqual(result["delivered"], count * receivers)
                self.assertEqual((result["lost"], result["loss_percent"], result["duplicates"]), (0, 0, 0))
                self.assertGreater(result["seconds"], 0)
                self.assertAlmostEqual(result["per_s"] * result["seconds"], count * receivers, delta=1)

    def test_a_peer_that_does_not_start_is_told_of_and_the_others_go_on(self):
        done = run("--peers", "ackring:polling,boost-mq:polling", "--rounds", "2", "--count", "10", exchange="/bin/false")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        # Once: what did not start in a round is left out of the later ones.
        self.assertEqual([(one["peer"], one["round"], one["measure"]) for one in result["failures"]],
                         [("ackring:polling", 1, "start")])
        self.assertIn("peers: ackring:polling: start: ackring-exchange: it ended at once", done.stderr)
        measured = {peer["name"]: "fan_out" in peer for peer in result["peers"]}
        self.assertEqual(measured, {"ackring": False, "boost-mq": True})
        self.check_peer(result["peers"][1], rounds=2, count=10)

    def test_nothing_measured_is_a_failure(self):
        done = run("--peers", "ackring", "--rounds", "1", "--count", "10", exchange="/bin/false")
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_unknown_peer(self):
        done = run("--peers", "pigeons")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--peers pigeons: not in this build", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
