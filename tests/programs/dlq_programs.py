"""Dead letters as a user meets them: a group of programs_test.py."""
import json
import shutil
import signal
import time

from programs_support import ARGUMENTS, Programs


class Dlq(Programs):
    FIELDS = ["delivery", "topic", "key", "headers", "publisher", "sequence", "published_ns", "dead_ns", "reason",
              "attempts", "data"]

    def setUp(self):
        super().setUp()
        self.process = self.exchange()
        self.tool("subscription", "create", "s", "#", "--max-deliveries", "3", "--backoff", "1ms:20ms:2", "--jitter", "0")

    def kill(self, process):
        process.kill()
        process.wait()

    def poison(self, *payloads):
        """Publishes them and nacks them until they are dead."""
        for payload in payloads:
            self.tool("pub", "a.b", payload, "--name", "shop", "--key", "k", "--header", "h=v")
        self.refuse(3 * len(payloads))

    def refuse(self, count):
        self.tool("sub", "--name", "s", "--verdict", "nack", "--count", str(count), "--timeout", "10s")

    def letters(self, *arguments):
        return json.loads(self.tool("dlq", "show", "s", "--json", *arguments))

    def test_life_of_a_letter(self):
        self.poison('{"x" :  1}')
        row = json.loads(self.tool("dlq", "ls", "--json"))[0]
        self.assertEqual(row, {"name": "s", "dlq_size": 1, "retry_waiting": 0, "dead_lettered": 1, "requeued": 0,
                               "dlq_removed": 0})
        (letter,) = self.letters()
        self.assertEqual(list(letter), self.FIELDS)
        self.assertEqual([letter[key] for key in ("delivery", "topic", "key", "headers", "publisher", "sequence", "reason",
                                                  "data")],
                         [1, "a.b", "k", {"h": "v"}, "shop", 1, "max_deliveries", {"x": 1}])
        times = [letter["published_ns"], *(attempt["time_ns"] for attempt in letter["attempts"])]
        self.assertEqual((len(times), times), (4, sorted(times)))
        self.assertEqual(letter["dead_ns"], times[-1])
        self.assertLess(abs(letter["dead_ns"] - time.time_ns()), 60e9)
        self.assertEqual({attempt["cause"] for attempt in letter["attempts"]}, {"nacked"})
        self.assertEqual(self.letters(), [letter])  # whenever one looks
        self.assertIn(b"shop/1", self.tool("dlq", "ls", "s"))
        self.assertEqual(self.tool("dlq", "show", "s").count(b" nacked\n"), 3)
        exported = self.tool("dlq", "export", "s")
        self.assertEqual(json.loads(exported), letter)
        self.assertIn(b'"data":{"x" :  1}}', exported)  # byte for byte

        self.assertEqual(self.tool("dlq", "requeue", "s", "--id", "shop/1"), b"requeued 1 dead letter\n")
        self.assertEqual(self.letters(), [])
        event = json.loads(self.tool("sub", "--name", "s", "--count", "1", "--timeout", "10s"))
        self.assertEqual((event["delivery"], event["attempt"]), (1, 4))
        self.assertEqual([self.books("s")[key] for key in ("acked", "requeued", "dlq_size")], [1, 1, 0])

    def test_selections(self):
        self.poison(*"abcde")
        for selection in (["--id", "99"], ["--id", "shop/99"], ["--id", "nobody/1"], ["--reason", "rejected"]):
            self.tool("dlq", "requeue", "s", *selection, status=1)
            self.tool("dlq", "purge", "s", *selection, status=1)
        self.assertEqual(len(self.letters("-n", "2")), 2)
        self.tool("dlq", "requeue", "s", "--id", "3")
        self.tool("dlq", "purge", "s", "--id", "shop/2")
        self.assertEqual({letter["data"] for letter in self.letters()}, {"a", "d", "e"})
        self.refuse(3)  # the requeued one has its three attempts again
        self.assertEqual({letter["delivery"]: len(letter["attempts"]) for letter in self.letters()},
                         {1: 3, 3: 6, 4: 3, 5: 3})
        started = time.monotonic()
        self.assertEqual(self.tool("dlq", "requeue", "s", "--reason", "max_deliveries", "--rate", "10"),
                         b"requeued 4 dead letters\n")
        self.assertGreater(time.monotonic() - started, 0.25)
        self.tool("dlq", "requeue", "s", "--all", status=1)
        self.refuse(12)
        self.assertEqual(self.tool("dlq", "purge", "s"), b"purged 4 dead letters\n")
        self.tool("dlq", "purge", "s", "--all", status=1)
        self.assertEqual([self.books("s")[key] for key in ("dlq_removed", "dlq_size")], [5, 0])

    def test_requeue_ends(self):
        self.tool("subscription", "update", "s", "--max-deliveries", "1")
        self.tool("pub", "a", "--lines", "-", stdin=b"poison\n" * 20)
        member = self.start(ARGUMENTS.shmtool, "sub", "--name", "s", "--verdict", "nack")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 20, "all are dead")
        self.assertEqual(self.tool("dlq", "requeue", "s", "--all", "--rate", "50"), b"requeued 20 dead letters\n")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 20, "all are dead again")
        member.send_signal(signal.SIGTERM)
        self.finish(member)

    def test_many(self):
        self.tool("subscription", "update", "s", "--max-deliveries", "1")
        lines = b"".join(b"%d %s\n" % (i, b"x" * 1000) for i in range(10_000))
        self.tool("pub", "a", "--lines", "-", stdin=lines)
        self.tool("sub", "--name", "s", "--verdict", "nack", "--count", "10000", "--timeout", "18s", "--format", "topic")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 10_000, "all are dead")
        exported = self.tool("dlq", "export", "s")
        self.assertEqual({json.loads(line)["data"] for line in exported.splitlines()},
                         {line.decode() for line in lines.splitlines()})
        self.kill(self.process)
        self.assertEqual(self.tool("dlq", "export", "s"), exported)
        self.exchange()
        self.assertEqual(self.tool("dlq", "export", "s"), exported)
        self.assertEqual(self.tool("dlq", "requeue", "s", "--all"), b"requeued 10000 dead letters\n")
        self.assertEqual(self.books("s")["dlq_size"], 0)

    def test_dead_bus(self):
        self.tool("pub", "z", b"caf\xe9")
        self.refuse(3)
        live = [self.tool("dlq", *command) for command in (["ls"], ["ls", "s"], ["show", "s"], ["export", "s"])]
        self.assertEqual(self.letters()[0]["data_base64"], "Y2Fm6Q==")
        self.kill(self.process)
        for command, output in zip((["ls"], ["ls", "s"], ["show", "s"], ["export", "s"]), live):
            self.assertEqual(self.tool("dlq", *command), output)
        self.tool("dlq", "show", "nobody", status=1)
        self.tool("dlq", "requeue", "s", "--all", status=3)
        self.tool("dlq", "purge", "s", status=3)
        shutil.copytree(f"{self.directory}/test", f"{self.directory}/copy", ignore=shutil.ignore_patterns("*.sock"))
        self.assertEqual(self.tool("dlq", "export", "s", "--bus", "copy"), live[3])
        self.tool("dlq", "ls", "--bus", "missing", status=3)

    def test_stalled_bus(self):
        self.poison("x")
        letters = self.letters()
        self.process.send_signal(signal.SIGSTOP)
        self.wait_until(lambda: self.stat()["exchange"]["state"] == "stalled", "it is seen to be stalled")
        self.assertEqual(self.letters(), letters)
        self.process.send_signal(signal.SIGCONT)

    def test_member_death_and_timeout(self):
        self.tool("subscription", "update", "s", "--max-deliveries", "2", "--ack-timeout", "20ms")
        self.tool("pub", "a", "x")
        member = self.subscriber("--name", "s", "--verdict", "none")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 1, "both attempts have timed out")
        self.assertEqual([attempt["cause"] for attempt in self.letters()[0]["attempts"]], ["timed_out"] * 2)
        self.kill(member)
        self.tool("dlq", "purge", "s")
        self.tool("subscription", "update", "s", "--ack-timeout", "30s")
        for _ in range(2):
            if self.books("s")["matched"] == 1:
                self.tool("pub", "a", "y")
            member = self.subscriber("--name", "s", "--verdict", "none")
            self.wait_until(lambda: self.books("s")["in_flight"] == 1, "it is taken")
            self.kill(member)
            self.wait_until(lambda: self.books("s")["members"] == 0, "its death is seen")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 1, "it is dead")
        self.assertEqual([attempt["cause"] for attempt in self.letters()[0]["attempts"]], ["member_died"] * 2)

    def test_full_log(self):
        self.tool("subscription", "update", "s", "--max-deliveries", "1", "--max-dead", "400")
        self.tool("pub", "a", "--lines", "-", stdin=b"1\n2\n3\n4\n5\n")
        member = self.start(ARGUMENTS.shmtool, "sub", "--name", "s", "--verdict", "nack")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 2, "the log is full")
        self.assertEqual(self.books("s")["in_flight"], 3)
        self.tool("subscription", "update", "s", "--max-dead", "1MiB")
        self.wait_until(lambda: self.books("s")["dlq_size"] == 5, "there is room")
        member.terminate()
        self.finish(member)

    def test_reject(self):
        self.tool("pub", "a.b", "wrong")
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "1", "--timeout", "10s")
        (letter,) = self.letters()
        self.assertEqual((letter["reason"], [attempt["cause"] for attempt in letter["attempts"]], letter["data"]),
                         ("rejected", ["rejected"], "wrong"))

    def test_usage(self):
        for wrong in ([], ["bury"], ["show"], ["export"], ["requeue"], ["requeue", "s"], ["requeue", "s", "--id", "0"],
                      ["requeue", "s", "--id", "shop/"], ["requeue", "s", "--id", "/1"], ["requeue", "s", "--id", "1.5"],
                      ["requeue", "s", "--all", "--id", "1"], ["requeue", "s", "--all", "--rate", "0"],
                      ["requeue", "s", "--all", "--reason", "rejected"], ["requeue", "s", "--reason", ""],
                      ["show", "s", "-n", "0"], ["purge", "s", "--rate", "5"]):
            self.tool("dlq", *wrong, status=2)
        for command in (["ls", "nobody"], ["show", "nobody"], ["export", "nobody"], ["purge", "nobody"],
                        ["requeue", "nobody", "--all"]):
            self.tool("dlq", *command, status=1)
        for option, wrong in (("--backoff", "1s"), ("--backoff", "1s:2s"), ("--backoff", "2s:1s:2"),
                              ("--backoff", "1s:2s:0.5"), ("--backoff", "1s:2s:x"), ("--jitter", "1.1"),
                              ("--jitter", "-1"), ("--jitter", "nan"), ("--max-dead", "much")):
            self.tool("subscription", "create", "t", "#", option, wrong, status=2)
        self.assertEqual(self.letters(), [])
        self.assertEqual(self.tool("dlq", "show", "s"), b"no dead letters\n")
        self.tool("sub", "--name", "s", "--backoff", "1ms:20ms:2", "--timeout", "10ms")
        self.tool("sub", "--name", "s", "--backoff", "1ms:20ms:3", "--timeout", "10ms", status=2)
        self.tool("dlq", "requeue", "--help")
