"""What a bus takes, planned and measured, and looks that repeat: groups of programs_test.py."""
import json
import os
import pathlib
import re
import signal
import subprocess

from programs_support import ARGUMENTS, PATIENCE, Programs

KINDS = (("exchange", "exchange page"), ("topics", "topic table"), (r"pub\.\d+\.ring\.\d+", "publisher ring"),
         (r"pub\.\d+\.cursor\.\d+", "publisher cursor"), (r"sub\.\d+\.state", "subscription"),
         (r"sub\.\d+\.json", "definition"), (r"sub\.\d+\.ring\.\d+", "member ring"), (r"sub\.\d+\.ack\.\d+", "ack page"),
         (r"sub\.\d+\.backlog\.\d+", "backlog"), (r"sub\.\d+\.retry\.\d+", "retry log"),
         (r"sub\.\d+\.dead\.\d+", "dead-letter log"), (r"(client\.\d+|exchange)\.lock", "lock file"),
         (r"exchange\.sock", "socket"))


class Plan(Programs):
    SUBSCRIPTION = ("--group", "--ring", "64KiB", "--max-in-flight", "1000", "--max-bytes", "8MiB", "--max-dead", "1MiB",
                    "--overflow", "drop-newest")
    SHAPE = ("--publishers", "2", "--subscriptions", "3", "--members", "2", "--topics", "1500", "--publisher-ring", "128KiB",
             *SUBSCRIPTION)

    def plan(self, *arguments):
        """Whether it fits here or not."""
        done = subprocess.run([ARGUMENTS.shmtool, "plan", "--json", *arguments], env=self.environment, capture_output=True,
                              timeout=PATIENCE, check=False)
        plan = json.loads(done.stdout)
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (0, 0) if plan["fits"] else (1, 1), done.stderr)
        self.error = done.stderr.decode()
        return plan

    def kinds(self, plan, moment):
        return {kind["kind"]: (kind[f"{moment}_files"], kind[f"{moment}_bytes"]) for kind in plan["files"]}

    def measured(self):
        """The same of the directory of the bus: files and allocated bytes of each kind."""
        found = {kind: (0, 0) for _, kind in KINDS}
        for path in pathlib.Path(self.directory, "test").iterdir():
            kind = next(kind for pattern, kind in KINDS if re.fullmatch(pattern, path.name))
            found[kind] = (found[kind][0] + 1, found[kind][1] + path.lstat().st_blocks * 512)
        return found

    def descriptors(self, process):
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    def test_a_real_bus(self):
        """At rest all is as planned, to the byte; what grows stays below what is planned at most."""
        shards = os.environ.get("ACKRING_SHARDS", "1")
        plan = self.plan(*self.SHAPE, "--shards", shards)
        self.assertEqual(os.listdir(self.directory), [])  # it makes nothing
        exchange = self.exchange()
        clients = []
        for n in range(2):
            clients.append(self.start(ARGUMENTS.shmtool, "pub", "--ndjson", "-", "--name", f"p{n}", "--ring", "128KiB",
                                      stdin=subprocess.PIPE))
        for n in range(3):
            self.tool("subscription", "create", f"s{n}", "#", *self.SUBSCRIPTION)
            clients += [self.start(ARGUMENTS.shmtool, "sub", "--name", f"s{n}", "--verdict", "none") for _ in range(2)]
        self.wait_until(lambda: [one["members"] for one in self.stat()["subscriptions"]] == [2, 2, 2]
                        and len(self.stat()["publishers"]) == 2, "all have joined")
        # The clients of stat have gone when their lock files have.
        self.wait_until(lambda: self.measured()["lock file"][0] == 9, "nobody else is there")
        self.assertEqual(self.measured(), self.kinds(plan, "rest"))
        self.assertEqual(plan["total"]["rest_bytes"], sum(size for _, size in self.measured().values()))
        self.assertEqual(self.descriptors(exchange), plan["descriptors"]["exchange"])
        self.assertEqual({self.descriptors(client) for client in clients}, {plan["descriptors"]["client"]})

        most = self.kinds(plan, "most")
        for client in clients[2:]:
            client.send_signal(signal.SIGSTOP)
        for n in range(1500):
            clients[0].stdin.write(json.dumps({"topic": f"{n:04d}." + "x" * 250, "data": "y" * 15000}).encode() + b"\n")
        clients[0].stdin.close()
        clients[0].wait()
        grown = self.measured()
        self.assertEqual(grown["topic table"], most["topic table"])
        self.assertEqual(max(path.stat().st_size for path in pathlib.Path(self.directory, "test").glob("pub.*.cursor.*")),
                         most["publisher cursor"][1] / 2)
        self.assertTrue(all(one["dropped"] for one in self.stat()["subscriptions"]))  # the backlogs are full
        files, size = grown["backlog"]
        self.assertGreater(size, 3 * 0.9 * 2**23)
        self.assertLessEqual(files, most["backlog"][0])
        self.assertLessEqual(size, most["backlog"][1])

    def test_what_does_not_fit(self):
        small = ("--ring", "4KiB", "--max-bytes", "64KiB", "--max-dead", "64KiB", "--publisher-ring", "4KiB",
                 "--max-in-flight", "1")
        self.assertFalse(self.plan(*small[:4], "--max-dead", str(2**64 - 1))["fits"])
        self.assertRegex(self.error, "it does not fit when all queues are full: .* has .* free, and the bus may take")
        self.assertFalse(self.plan(*small[:-4], "--publishers", "1024", "--publisher-ring", "1GiB")["fits"])
        self.assertRegex(self.error, "it does not fit: .* before anything waits")
        self.assertTrue(self.plan(*small, "--dir", f"{self.directory}/not/there")["fits"])
        done = subprocess.run(["bash", "-c", 'ulimit -n 30; exec "$@"', "-", ARGUMENTS.shmtool, "plan", *small, "--members", "9"],
                              env=self.environment, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), done.stderr)
        self.assertIn(b"may open 30 files", done.stderr)
        loose, tight = (self.kinds(self.plan("--max-bytes", "1GiB", *more), "most")["backlog"][1]
                        for more in ((), ("--event", "1KiB")))
        self.assertTrue(2**30 < tight < 1.1 * 2**30 and tight < loose, (tight, loose))
        text = self.tool("plan", *small).decode()
        for word in ("exchange page", "member ring", "dead-letter log", "total", "Descriptors: ", " free.\n"):
            self.assertIn(word, text)
        for wrong in (["--publishers", "1025"], ["--members", "16385"], ["--subscriptions", "200", "--members", "200"],
                      ["--topics", "1048577"], ["--shards", "5"], ["--ring", "5000"], ["--publisher-ring", "5000"],
                      ["--max-in-flight", "0"], ["--publishers", "-1"], ["--overflow", "explode"]):
            self.tool("plan", *wrong, status=2)


class Watch(Programs):
    def setUp(self):
        super().setUp()
        self.exchange()
        self.tool("subscription", "create", "s", "#")

    def test_rates(self):
        process = self.start(ARGUMENTS.shmtool, "stat", "--watch", "20ms", "--json")
        looks = [json.loads(process.stdout.readline())]
        self.assertEqual(looks[0]["subscriptions"][0]["per_s"],
                         {"matched": None, "delivered": None, "acked": None, "nacked": None})
        self.tool("pub", "a", "--repeat", "100")
        while looks[-1]["subscriptions"][0]["matched"] < 100:
            looks.append(json.loads(process.stdout.readline()))
        rates = [look["subscriptions"][0]["per_s"] for look in looks[1:]]
        self.assertGreater(rates[-1]["matched"], 0)
        self.assertEqual((rates[-1]["acked"], rates[-1]["nacked"]), (0, 0))
        last = json.loads(process.stdout.readline())
        self.assertEqual(last["subscriptions"][0]["per_s"]["matched"], 0)
        process.send_signal(signal.SIGTERM)
        self.finish(process)
        process = self.start(ARGUMENTS.shmtool, "stat", "--watch", "20ms")
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(timeout=PATIENCE), 0)

    def test_text(self):
        text = self.tool("stat", "--watch", "10ms", "--count", "2")
        self.assertEqual(text.count(b"SUBSCRIPTION"), 2)
        self.assertEqual(text.count(b"MATCHED/s"), 2)
        self.assertNotIn(b"\x1b", text)
        self.assertNotIn(b"/s", self.tool("stat"))
        one = self.tool("stat", "s", "--watch", "10ms", "--count", "2")
        self.assertRegex(one, rb"matched/s +-\n(.*\n)+.*matched/s +0\n")
        self.assertEqual(json.loads(self.tool("stat", "s", "--watch", "--count", "1", "--json"))["name"], "s")
        for wrong in (["--watch", "0"], ["--watch", "s"], ["--count", "2"], ["--watch", "1s", "--count", "0"]):
            self.tool("stat", *wrong, status=2)
        self.tool("stat", "nobody", "--watch", "1s", status=1)
        self.tool("stat", "--watch", "1s", "--bus", "nobody", status=3)
        terminal, end = os.openpty()
        process = self.start(ARGUMENTS.shmtool, "stat", "--watch", "10ms", "--count", "1", stdout=end)
        os.close(end)
        self.assertEqual(process.wait(timeout=PATIENCE), 0)
        self.assertTrue(os.read(terminal, 100).startswith(b"\x1b[H\x1b[2J"))
        os.close(terminal)
