"""Recordings as a user makes and replays them: a group of programs_test.py."""
import base64
import json
import pathlib
import signal
import subprocess

from programs_support import ARGUMENTS, PATIENCE, Programs


def exact(lines):
    """Of each line what a replay must bring back."""
    kept = ("topic", "key", "headers", "data", "data_base64", "key_base64", "headers_base64")
    return [{key: value for key, value in json.loads(line).items() if key in kept} for line in lines]


class Recording(Programs):
    def setUp(self):
        super().setUp()
        self.process = self.exchange()
        self.file = f"{self.directory}/recording"

    def record(self, *arguments, **options):
        """A `shmtool record` that has joined."""
        before = len(self.stat()["subscriptions"])
        process = self.start(ARGUMENTS.shmtool, "record", *arguments, **options)
        self.wait_until(lambda: len(self.stat()["subscriptions"]) == before + 1, "the recorder is there")
        return process

    def stop(self, process, status=0):
        process.send_signal(signal.SIGTERM)
        return self.finish(process, status)

    def make(self, file, *arguments, count=3):
        """A recording of `count` events: {"n": 0}, …"""
        process = self.record("#", "-o", file, *arguments)
        self.tool("pub", "--ndjson", "-", stdin=b"".join(b'{"topic": "a.n", "data": {"n": %d}}\n' % n for n in range(count)))
        self.assertEqual(self.stop(process), b"recorded %d events\n" % count)

    def data(self, subscription, count):
        """What the next deliveries of a subscription hold."""
        lines = self.tool("sub", "--name", subscription, "--count", str(count), "--timeout", "10s").splitlines()
        return [json.loads(line)["data"] for line in lines]

    def test_there_and_back(self):
        """Every byte of events of all kinds, in both formats, through a file and through pipes."""
        payloads = [b"", b"\x00\xff", b'"text"', b" 1", b'{"a" :  1}', b"two\nlines", "grüße".encode(), bytes(range(256))]
        recorders = {name: self.record("#", "-o", f"{self.file}.{name}", "--format", name) for name in ("ndjson", "compact")}
        piped = self.record("#")
        # What a shell can't say, a line can: keys and headers that are no text.
        lines = [{"topic": "a.odd", "data": "", "key_base64": "/w==",
                  "headers_base64": [["/g==", "AA=="], ["bg==", "dg=="], ["bg==", "dw=="]]}]
        lines += [{"topic": "a.b", "key": "k", "headers": {"h": "v w"}, "data_base64": base64.b64encode(payload).decode()}
                  for payload in payloads]
        self.tool("pub", "--ndjson", "-", stdin="\n".join(map(json.dumps, lines)).encode())
        for recorder in recorders.values():
            self.assertEqual(self.stop(recorder), b"recorded %d events\n" % (1 + len(payloads)))
        wanted = self.stop(piped).splitlines()
        self.assertEqual(exact(pathlib.Path(f"{self.file}.ndjson").read_bytes().splitlines()), exact(wanted))
        self.assertEqual(list(json.loads(wanted[-1])), ["topic", "key", "headers", "publisher", "sequence", "delivery",
                                                        "attempt", "published_ns", "data_base64"])
        self.assertEqual(json.loads(wanted[0])["key_base64"], "/w==")
        self.assertEqual(self.stat()["subscriptions"], [])  # the recorders left nothing
        for source in ("ndjson", "compact"):
            again = self.record("#", "--count", str(1 + len(payloads)))
            out = self.tool("replay", f"{self.file}.{source}", "--max", "--name", "copy")
            self.assertEqual(out, b"published %d events\n" % (1 + len(payloads)))
            lines = self.finish(again).splitlines()
            self.assertEqual(exact(lines), exact(wanted))
            self.assertEqual({json.loads(line)["publisher"] for line in lines}, {"copy"})
        again = self.record("#", "--count", str(1 + len(payloads)))
        self.tool("pub", "--ndjson", f"{self.file}.ndjson")
        self.assertEqual(exact(self.finish(again).splitlines()), exact(wanted))
        again = self.record("#", "--count", "2")
        compact = pathlib.Path(f"{self.file}.compact").read_bytes()
        self.assertEqual(self.tool("replay", "-", "--skip", "1", "--count", "2", "--topic-prefix", "test", stdin=compact),
                         b"published 2 events\n")
        lines = self.finish(again).splitlines()
        self.assertEqual(exact(lines), [{**line, "topic": "test.a.b"} for line in exact(wanted)[1:3]])

    def distances(self, *arguments):
        """Seconds between the three events of self.file when it is replayed."""
        again = self.record("#", "--count", "3")
        self.tool("replay", self.file, *arguments)
        times = [json.loads(line)["published_ns"] for line in self.finish(again).splitlines()]
        return [(after - before) / 1e9 for before, after in zip(times, times[1:])]

    def test_pace(self):
        """Distances are those of the recording, divided by the speed; one that went back in time counts as none."""
        lines = [json.dumps({"topic": "a", "data": n, "published_ns": 10**18 + t}) for n, t in enumerate((0, 300_000_000, 0))]
        pathlib.Path(self.file).write_text("\n".join(lines))
        for arguments, least in (([], 0.3), (["--speed", "3"], 0.1), (["--speed", "0.5"], 0.6), (["--max-gap", "50ms"], 0.05)):
            first, second = self.distances(*arguments)
            self.assertGreaterEqual(first, least - 0.001, arguments)
            self.assertGreaterEqual(second, 0)
        # As fast as possible, hours are nothing.
        lines[1] = lines[1].replace(str(10**18)[:6], "1" + "9" * 5)
        pathlib.Path(self.file).write_text("\n".join(lines))
        self.assertEqual(len(self.distances("--max")), 2)
        self.tool("replay", self.file, "--timeout", "100ms", status=1)
        self.assertIn("the recording goes on", self.error)
        process = self.start(ARGUMENTS.shmtool, "replay", self.file)
        self.wait_until(lambda: self.stat()["publishers"][-1]["in_ring"] == 0, "it waits")
        process.send_signal(signal.SIGINT)
        self.assertRegex(self.finish(process), rb"^published [01] events\n$")

    def test_recorded_distances(self):
        process = self.record("#", "-o", self.file, "--format", "compact")
        self.tool("pub", "a", "--repeat", "3", "--rate", "10")
        self.stop(process)
        for first in self.distances():
            self.assertGreaterEqual(first, 0.08)

    def test_killed_recorder(self):
        """A compact recording whose recorder was killed gives what it has."""
        process = self.record("#", "-o", self.file, "--format", "compact")
        self.tool("pub", "a", "x", "--repeat", "5")
        written = pathlib.Path(self.file)
        self.wait_until(lambda: written.stat().st_size > 5 * 64, "it is written")
        process.kill()
        process.wait()
        self.tool("subscription", "create", "s", "#")
        self.assertEqual(self.tool("replay", self.file, "--max", status=1), b"published 5 events\n")
        self.assertIn("cut short", self.error)
        written.write_bytes(written.read_bytes()[:-1])
        self.assertEqual(self.tool("replay", self.file, "--max", status=1), b"published 4 events\n")
        self.assertEqual(self.books("s")["matched"], 9)
        changed = bytearray(written.read_bytes())
        changed[-60] ^= 1
        written.write_bytes(changed)
        self.assertEqual(self.tool("replay", self.file, "--max", status=1).count(b"\n"), 1)

    def test_bad_lines(self):
        self.make(self.file)
        self.tool("subscription", "create", "s", "#")
        lines = pathlib.Path(self.file).read_text().splitlines(keepends=True)
        lines.insert(2, '{"topic": 7}\n')
        pathlib.Path(self.file).write_text("".join(lines))
        self.assertEqual(self.tool("replay", self.file, "--max", status=2), b"published 2 events\n")
        self.assertIn(f"{self.file}:3: ", self.error)
        self.assertEqual(self.data("s", 2), [{"n": 0}, {"n": 1}])
        self.assertEqual(self.books("s")["matched"], 2)
        del lines[2]
        pathlib.Path(self.file).write_text("".join(lines)[:-9])
        self.assertEqual(self.tool("replay", self.file, "--skip", "1", "--max", status=1), b"published 1 events\n")
        self.assertIn(f"{self.file}:3: cut short", self.error)
        self.assertEqual(self.data("s", 1), [{"n": 1}])
        self.tool("replay", f"{self.directory}/none", status=2)
        for arguments in ([], [self.file, "--speed", "0"], [self.file, "--speed", "x"], [self.file, "--speed", "2", "--max"],
                          [self.file, "--count", "0"]):
            self.tool("replay", *arguments, status=2)
        pathlib.Path(self.file).write_bytes(b"")
        self.assertEqual(self.tool("replay", self.file), b"published 0 events\n")

    def test_waits_for_room(self):
        """A subscription that is full makes a replay wait, not lose or repeat anything."""
        self.make(self.file, count=300)
        self.tool("subscription", "create", "s", "#", "--max-events", "10", "--ring", "4KiB", "--max-in-flight", "1")
        process = self.start(ARGUMENTS.shmtool, "replay", self.file, "--max", "--ring", "4KiB")
        self.wait_until(lambda: self.stat()["publishers"][-1]["back_pressured"] > 0, "it has to wait")
        self.assertEqual(self.data("s", 300), [{"n": n} for n in range(300)])
        self.assertEqual(self.finish(process), b"published 300 events\n")
        self.assertEqual(self.books("s")["matched"], 300)

    def test_what_is_missing_is_said(self):
        for name in ("ndjson", "compact"):
            process = self.record("#", "-o", self.file, "--format", name, "--max-bytes", "64KiB", "--ring", "4KiB")
            process.send_signal(signal.SIGSTOP)
            self.tool("pub", "a", "x" * 500, "--repeat", "2000")
            dropped = sum(self.stat()["subscriptions"][0]["dropped"].values())
            self.assertGreater(dropped, 0)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            out, error = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, out), (1, b"recorded %d events\n" % (2000 - dropped)), error)
            self.assertRegex(error.decode(), rf"^shmtool: record: {dropped:,} events are missing [^\n]*backlog was full: [^\n]*--max-bytes\n$")
        done = subprocess.run([ARGUMENTS.shmtool, "replay", self.file, "--max"], env=self.environment, capture_output=True,
                              timeout=PATIENCE, check=True)
        self.assertIn(f"{dropped:,} events are missing from it", done.stderr.decode())
        process = self.record("#", "-o", self.file, "--ring", "4KiB")
        self.tool("pub", "a", "x" * 5000)
        process.send_signal(signal.SIGTERM)
        self.assertIn(b"give it a larger --ring\n", process.communicate(timeout=PATIENCE)[1])
        self.assertEqual(process.returncode, 1)

    def test_a_recorder_holds_up_nobody_and_ends(self):
        process = self.record("a.#", "--count", "2")
        self.tool("pub", "b", "0")
        self.tool("pub", "a", "1", "--repeat", "3")
        self.assertEqual(len(self.finish(process).splitlines()), 2)
        self.assertEqual(self.tool("record", "#", "--timeout", "50ms"), b"")
        self.tool("record", "#", "--timeout", "50ms", "--count", "1", status=1)
        for arguments in ([], ["a..b"], ["#", "--format", "xml"], ["#", "--from", "then"], ["#", "--count", "0"],
                          ["#", "-o", f"{self.directory}/none/file"], ["#", "--ring", "5000"]):
            self.tool("record", *arguments, status=2)
        process = self.record("#")
        process.stdout.close()
        self.tool("pub", "a", "1")
        self.assertEqual(process.wait(timeout=PATIENCE), 0)
        # Where there is no bus, the file stays.
        pathlib.Path(self.file).write_text("kept")
        self.tool("record", "#", "-o", self.file, "--bus", "nobody", status=3)
        self.assertEqual(pathlib.Path(self.file).read_text(), "kept")

    def test_from_last(self):
        """What the bus kept from before the recording is due at once."""
        self.tool("subscription", "create", "@last", "#")
        self.tool("pub", "a", "1")
        self.tool("pub", "b", "2")
        process = self.record("#", "-o", self.file, "--format", "compact", "--from", "last")
        self.tool("pub", "a", "3")
        self.assertEqual(self.stop(process), b"recorded 3 events\n")
        self.tool("subscription", "create", "s", "#")
        self.tool("replay", self.file)
        self.assertEqual(sorted(self.data("s", 3)), [1, 2, 3])

    def test_over_a_death_of_the_exchange(self):
        process = self.record("#", "-o", self.file)
        self.tool("pub", "a", "1")
        self.process.kill()
        self.process.wait()
        self.process = self.exchange()
        self.tool("pub", "a", "2")
        self.assertEqual(self.stop(process), b"recorded 2 events\n")
        self.assertEqual([json.loads(line)["data"] for line in pathlib.Path(self.file).read_text().splitlines()], [1, 2])
