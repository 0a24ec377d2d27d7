"""Looking into a bus as a user does, with peek, explain and tail: a group of programs_test.py."""
import json
import signal
import time

from programs_support import ARGUMENTS, Programs


class Inspect(Programs):
    def setUp(self):
        super().setUp()
        self.process = self.exchange()
        self.tool("subscription", "create", "s", "#", "--max-deliveries", "2", "--backoff", "1h:1h:1", "--jitter", "0")

    def publish(self, *payloads):
        for payload in payloads:
            self.tool("pub", "a.b", payload, "--name", "shop", "--key", "k", "--header", "h=v")

    def peek(self, *arguments):
        return [json.loads(line) for line in self.tool("peek", "s", *arguments).splitlines()]

    def explain(self, event, name="s"):
        return json.loads(self.tool("explain", name, event, "--json"))

    def test_peek(self):
        self.publish(*(f'{{"n" :  {i}}}' for i in range(1, 13)))
        before = self.stat()["subscriptions"]
        lines = self.tool("peek", "s")
        self.assertEqual([event["delivery"] for event in self.peek()], list(range(1, 11)))
        self.assertEqual([event["delivery"] for event in self.peek("-n", "100")], list(range(1, 13)))
        self.assertEqual([event["data"]["n"] for event in json.loads(self.tool("peek", "s", "-n", "3", "--json"))], [1, 2, 3])
        self.assertEqual(self.stat()["subscriptions"], before)
        taken = self.tool("sub", "--name", "s", "--count", "10", "--timeout", "10s")
        self.assertIn(b'"data":{"n" :  1}}', lines)  # byte for byte
        for shown, printed in zip(lines.splitlines(), taken.splitlines(), strict=True):
            shown, printed = json.loads(shown), json.loads(printed)
            self.assertEqual(list(shown), list(printed))
            self.assertLess(abs(shown.pop("published_ns") - printed.pop("published_ns")), 1e9)
            self.assertEqual(shown, printed)
        self.tool("sub", "--name", "s", "--verdict", "nack", "--count", "1", "--timeout", "10s")
        self.assertEqual([event["delivery"] for event in self.peek()], [12])  # the other one waits for its retry
        self.tool("sub", "--name", "s", "--count", "1", "--timeout", "10s")
        self.assertEqual(self.tool("peek", "s"), b"")
        self.assertEqual(self.tool("peek", "s", "--json"), b"[]\n")

    def test_explain(self):
        self.publish("1", "2", "3", "4")
        found = self.explain("shop/2")
        self.assertEqual([found[key] for key in ("subscription", "delivery", "state", "where", "position", "attempt")],
                         ["s", 2, "queued", "backlog", 1, 1])
        event = found["event"]
        self.assertEqual([event[key] for key in ("topic", "key", "headers", "publisher", "sequence")],
                         ["a.b", "k", {"h": "v"}, "shop", 2])
        self.assertLess(abs(event["published_ns"] - time.time_ns()), 60e9)
        self.tool("sub", "--name", "s", "--count", "1", "--timeout", "10s")
        self.assertEqual(self.explain("1")["state"], "settled")
        self.tool("sub", "--name", "s", "--verdict", "nack", "--count", "1", "--timeout", "10s")
        found = self.explain("2")
        self.assertEqual((found["state"], found["reason"], found["attempt"]), ("retry_waiting", "nacked", 2))
        self.assertGreater(found["due_ns"], time.time_ns() + 3000e9)
        self.assertEqual([attempt["cause"] for attempt in found["attempts"]], ["nacked"])
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "1", "--timeout", "10s")
        found = self.explain("shop/3")
        self.assertEqual((found["state"], found["reason"]), ("dead", "rejected"))
        member = self.subscriber("--name", "s", "--verdict", "none")
        self.wait_until(lambda: self.explain("4")["state"] == "in_flight", "it is taken")
        found = self.explain("4")
        self.assertEqual(found["member"]["pid"], member.pid)
        self.assertEqual(found["until_ns"] - found["since_ns"], 30_000_000_000)
        for event, words in (("1", "settled"), ("2", "waiting for a retry"), ("3", "a dead letter"), ("4", "in flight")):
            text = self.tool("explain", "s", event).decode()
            self.assertTrue(text.startswith(f"delivery {event} of s: {words}\n  why "), text)
        self.assertIn(f"pid {member.pid}", text)
        member.send_signal(signal.SIGTERM)
        self.finish(member)
        self.tool("dlq", "purge", "s")
        self.tool("subscription", "purge", "s")
        self.assertEqual([self.explain(event)["state"] for event in ("2", "3", "shop/3")], ["gone", "gone", "unknown"])

    def test_not_so(self):
        self.publish("1")
        for command in (["peek", "nobody"], ["explain", "nobody", "1"], ["explain", "s", "2"], ["explain", "s", "shop/2"],
                        ["explain", "s", "nobody/1"]):
            self.tool(*command, status=1)
        for command in (["peek"], ["peek", "s", "-n", "0"], ["peek", "s", "-n", "x"], ["explain", "s"],
                        ["explain", "s", "0"], ["explain", "s", "/1"], ["explain", "s", "shop/"], ["explain", "s", "-1"],
                        ["tail"], ["tail", "a..b"], ["tail", "#", "--format", "xml"], ["tail", "#", "--count", "0"]):
            self.tool(*command, status=2)
        self.process.kill()
        self.process.wait()
        for command in (["peek", "s"], ["explain", "s", "1"], ["tail", "#"]):
            self.tool(*command, status=3)

    def tap(self, *arguments):
        """A `shmtool tail` that has joined."""
        before = len(self.stat()["subscriptions"])
        process = self.start(ARGUMENTS.shmtool, "tail", *arguments)
        self.wait_until(lambda: len(self.stat()["subscriptions"]) == before + 1, "the tap is there")
        return process

    def test_tail(self):
        self.publish("0")
        tap = self.tap("a.#", "--count", "2", "--json")
        topics = self.tap("#", "--format", "topic", "--count", "3")
        self.tool("pub", "b", "x")
        self.publish("1", "2")
        lines = [json.loads(line) for line in self.finish(tap).splitlines()]
        self.assertEqual([(line["data"], line["sequence"], line["attempt"]) for line in lines], [(1, 2, 1), (2, 3, 1)])
        self.assertEqual(self.finish(topics), b"b\na.b\na.b\n")
        self.assertEqual(self.books("s")["queued"], 4)  # as if nobody had looked
        self.assertEqual([row["name"] for row in self.stat()["subscriptions"]], ["s"])
        self.assertEqual(self.tool("tail", "#", "--timeout", "50ms"), b"")
        self.tool("tail", "#", "--timeout", "50ms", "--count", "1", status=1)
        tap = self.tap("#")
        tap.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(tap), b"")

    def test_a_tap_that_stands_still_holds_up_nobody(self):
        tap = self.tap("#")
        tap.send_signal(signal.SIGSTOP)
        lines = (b"x" * 999 + b"\n") * 40_000  # twice the ring and the backlog of the tap
        self.assertEqual(self.tool("pub", "a", "--lines", "-", stdin=lines), b"published 40000 events\n")
        rows = {row["name"]: row for row in self.stat()["subscriptions"]}
        self.assertEqual(rows.pop("s")["queued"], 40_000)
        (row,) = rows.values()
        self.assertEqual((row["matched"], row["guarantee"]), (40_000, "at-most-once"))
        self.assertGreater(row["dropped"]["drop-oldest"], 10_000)
        tap.send_signal(signal.SIGCONT)
        self.assertGreater(len(tap.stdout.readline()), 999)
        tap.send_signal(signal.SIGTERM)
        self.finish(tap)
