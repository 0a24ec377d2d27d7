"""shmtool doctor and gc as a user runs them: groups of programs_test.py."""
import json
import os
import pathlib
import shutil
import struct
import subprocess

from programs_support import ARGUMENTS, PATIENCE, Programs

LOOKS = int(os.environ.get("ACKRING_LOOKS", "50"))


class Bus(Programs):
    @property
    def files(self):
        return pathlib.Path(self.directory) / "test"

    def kill(self, process):
        process.kill()
        process.wait()

    def doctor(self, *arguments, status=0):
        return json.loads(self.tool("doctor", *arguments, "--json", status=status))

    def gc(self, *arguments, status=0):
        return self.tool("gc", *arguments, status=status).decode().splitlines()


class Doctor(Bus):
    def traffic(self):
        """Events for a plain subscription, a group, and one whose member refuses all; none of it ends by itself."""
        self.tool("subscription", "create", "refused", "a.#", "--backoff", "1ms:5ms:2", "--max-deliveries", "3")
        self.tool("subscription", "create", "waiting", "#", "--max-events", "100", "--overflow", "drop-oldest")
        self.subscriber("#", "--name", "plain", "--format", "topic", stdout=subprocess.DEVNULL)
        for _ in range(2):
            self.start(ARGUMENTS.shmtool, "sub", "#", "--name", "group", "--group", stdout=subprocess.DEVNULL)
        self.start(ARGUMENTS.shmtool, "sub", "--name", "refused", "--verdict", "nack", stdout=subprocess.DEVNULL)
        self.start(ARGUMENTS.shmtool, "pub", "a.b", "x" * 50, "--name", "shop", "--count", "100000000", "--rate", "2000")
        self.wait_until(lambda: self.books("plain")["acked"] > 100, "events flow")

    def subscriber(self, *arguments, **options):
        name = arguments[arguments.index("--name") + 1]
        process = self.start(ARGUMENTS.shmtool, "sub", *arguments, **options)
        self.wait_until(lambda: self.books(name, {"members": 0})["members"] == 1, f"{name} has joined")
        return process

    def test_no_false_alarm_while_events_flow_and_exchanges_die(self):
        process = self.exchange()
        self.traffic()
        before = self.books("plain")["acked"]
        compared = 0
        for look in range(LOOKS):
            report = self.doctor()
            self.assertEqual(report["violations"], [], f"look {look}")
            self.assertIn(report["state"], ("running", "stalled"))
            self.assertEqual((report["subscriptions"], report["publishers"]), (4, 1))
            compared += not any(note["check"] == "moves" for note in report["notes"])
            if look % 10 == 9:
                self.kill(process)
                report = self.doctor()
                self.assertEqual((report["state"], report["violations"]), ("dead", []), f"look {look}")
                self.assertIn("died", [note["check"] for note in report["notes"]])
                process = self.exchange()
        self.assertGreater(compared, 0)  # some of them saw all counts
        self.wait_until(lambda: self.books("plain")["acked"] > before, "events flow to the end")

    def test_dead_and_copied_and_damaged(self):
        process = self.exchange()
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "1", "--count", "10")
        self.kill(process)
        copy = pathlib.Path(self.directory) / "copy"
        shutil.copytree(self.files, copy, ignore=shutil.ignore_patterns("*.sock"))
        for arguments in ([], [str(copy)]):
            report = self.doctor(*arguments)
            self.assertEqual((report["state"], report["violations"], report["subscriptions"]), ("dead", [], 1))
        text = self.tool("doctor", str(copy)).decode().splitlines()
        self.assertTrue(text[-1].endswith(": 0 violations"), text)
        self.assertTrue(all(line.startswith(("note: ", "warning: ")) for line in text[:-1]), text)
        (state,) = copy.glob("sub.*.state")
        with state.open("r+b") as file:  # both copies of the counters: matched and one more
            for offset in (192 + 32, 192 + 320 + 32):
                file.seek(offset)
                (matched,) = struct.unpack("<Q", file.read(8))
                file.seek(offset)
                file.write(struct.pack("<Q", matched + 1))
        lines = self.tool("doctor", str(copy), status=1).decode().splitlines()
        self.assertIn("1 violation found", self.error)
        self.assertTrue(any(line.startswith(f"{state.name}: books: ") for line in lines), lines)
        self.assertEqual([one["check"] for one in self.doctor(str(copy), status=1)["violations"]], ["books"])
        for name in ("exchange", "topics", state.name):
            os.truncate(copy / name, 5000)
        self.doctor(str(copy), status=1)
        self.assertEqual(self.doctor()["violations"], [])  # the copy is a copy

    def test_a_stopped_bus_has_nothing_to_say(self):
        process = self.exchange()
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "1")
        process.terminate()
        self.finish(process)
        report = self.doctor()
        self.assertEqual((report["state"], report["violations"], report["notes"]), ("stopped", [], []))

    def test_usage(self):
        self.tool("doctor", status=3)
        self.tool("doctor", f"{self.directory}/nothing", status=3)
        self.tool("doctor", "a", "b", status=2)


class Gc(Bus):
    def test_what_a_crash_left(self):
        process = self.exchange()
        self.gc(status=3)
        self.gc("--dry-run", status=3)
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "1", "--count", "10")
        member = self.subscriber("--name", "s", "--verdict", "none")
        self.wait_until(lambda: len(list(self.files.glob("client.*.lock"))) == 1, "nobody else is connected")
        self.kill(process)
        self.assertEqual(self.gc("--dry-run"), [])  # a client that lives keeps its lock file
        self.kill(member)
        (held,) = self.files.glob("client.*.lock")
        (self.files / "sub.1.json.tmp").write_text("half")
        (self.files / "client.0.lock").touch()
        (self.files / "pub.0.cursor.1").touch()
        (self.files / "damaged.sub.77.state").write_text("precious")
        before = {path.name for path in self.files.iterdir()}
        lines = self.gc("--dry-run")
        self.assertEqual({path.name for path in self.files.iterdir()}, before)
        self.assertEqual(json.loads(self.tool("gc", "--dry-run", "--json"))[0].keys(), {"bus", "file", "action", "why"})
        self.assertEqual(self.gc(), lines)
        gone = before - {path.name for path in self.files.iterdir()}
        self.assertEqual(gone, {"sub.1.json.tmp", "client.0.lock", "pub.0.cursor.1"})
        self.assertEqual({line.split(":")[0] for line in lines},
                         {f"remove test/{name}" for name in gone} | {"keep test/damaged.sub.77.state", f"keep test/{held.name}"})
        process = self.exchange()
        self.assertEqual(self.books("s")["queued"] + self.books("s")["in_flight"], 10)
        process.terminate()
        self.finish(process)
        (state,) = self.files.glob("sub.*.state")
        os.truncate(state, 100)
        (self.files / "sub.1.json.tmp").write_text("half")
        self.gc(status=1)  # nothing goes from a bus that the doctor finds ill
        self.assertTrue((self.files / "sub.1.json.tmp").exists())

    def test_whole_buses(self):
        for bus in ("empty", "full", "served"):
            process = self.start(ARGUMENTS.exchange, "--bus", bus)
            process.stdout.readline()
            self.tool("pub", "a", "1", "--bus", bus, "--name", "shop")
            if bus == "full":
                self.tool("subscription", "create", "s", "#", "--bus", bus)
            if bus != "served":
                self.kill(process)
        os.mkdir(f"{self.directory}/.removed-old-1")
        pathlib.Path(self.directory, ".removed-old-1", "topics").touch()
        pathlib.Path(self.directory, "other").mkdir()
        lines = self.gc("--all", "--dry-run")
        self.assertTrue(os.path.exists(f"{self.directory}/empty/exchange"))
        self.assertEqual(self.gc("--all"), lines)
        self.assertEqual(sorted(os.listdir(self.directory)), ["full", "other", "served"])
        words = [line.split(":")[0] for line in lines]
        self.assertLessEqual({"remove .removed-old-1", "remove empty", "keep served"}, set(words))
        self.tool("ping", "--bus", "served")
        self.tool("gc", "--bus", "empty", status=3)

    def test_exchanges_that_start_meanwhile(self):
        for _ in range(8):
            collector = self.start(ARGUMENTS.shmtool, "gc", "--all")
            process = self.start(ARGUMENTS.exchange)
            line = process.stdout.readline()
            collector.communicate(timeout=PATIENCE)
            if line:
                self.tool("ping")
                self.kill(process)
            else:
                self.assertEqual(process.wait(timeout=PATIENCE), 3)
        self.exchange()
        self.tool("pub", "a", "1")
