"""Times and numbers of events, retry delays, overflow and dead-letter topics as a user meets them: a group of
programs_test.py. Nothing may happen before its time, to the nanosecond; how soon after it is not looked at."""
import itertools
import json
import time

from group_programs import Members
from programs_support import ARGUMENTS, PATIENCE

HOUR_NS = 3600 * 10**9


class Timing(Members):
    def create(self, name, *options, patterns=("#",)):
        self.tool("subscription", "create", name, *patterns, *options)

    def letters(self, name):
        return json.loads(self.tool("dlq", "show", name, "--json"))

    def take(self, name, count, *arguments):
        return self.events(self.tool("sub", "--name", name, "--count", str(count), "--timeout", "15s", *arguments))

    def restart(self):
        self.kill(self.process)
        self.process = self.exchange()

    def publisher(self, name):
        return next(row for row in self.stat()["publishers"] if row["name"] == name)

    def assert_refused(self, *command, status=2, says=""):
        """One line that says what is wrong, and nothing has changed."""
        before = self.stat()["subscriptions"]
        self.tool(*command, status=status)
        self.assertIn(says, self.error, command)
        self.assertGreaterEqual(self.error.count(": "), 3, self.error)  # PROGRAM: what: why: what to do
        self.assertEqual(self.stat()["subscriptions"], before)

    def test_ttl_of_an_event(self):
        self.create("counts")
        self.create("buries", "--dead-letter-expired")
        started = time.monotonic()
        self.tool("pub", "a", "short", "--ttl", "150ms", "--name", "shop")
        self.tool("pub", "a", "for ever")
        self.tool("pub", "a", "long", "--ttl", "1h")
        self.wait_for("counts", expired=1, queued=2, dlq_size=0, dropped={})  # nobody is listening
        self.wait_for("buries", expired=0, queued=2, dlq_size=1, dropped={})
        self.assertGreaterEqual(time.monotonic() - started, 0.15)
        (letter,) = self.letters("buries")
        self.assertEqual([letter[key] for key in ("delivery", "publisher", "sequence", "data", "reason", "attempts")],
                         [1, "shop", 1, "short", "expired", []])
        self.assertEqual([(event["delivery"], event["data"]) for event in self.take("counts", 2)],
                         [(2, "for ever"), (3, "long")])
        self.tool("dlq", "requeue", "buries", "--reason", "expired")  # it has all the time now
        self.restart()
        self.assertEqual({(event["data"], event["attempt"]) for event in self.take("buries", 3)},
                         {("short", 1), ("for ever", 1), ("long", 1)})
        self.wait_for("counts", matched=3, acked=2, expired=1, lag=0)
        self.wait_for("buries", matched=3, acked=3, requeued=1, lag=0)

    def test_ttl_ends_where_delivery_begins(self):
        self.create("s", "--max-in-flight", "1")
        held = self.member("s", "--verdict", "none")
        self.create("witness")
        self.tool("pub", "a", "--lines", "-", "--ttl", "100ms", stdin=b"taken\nwaits\n")
        self.wait_for("witness", expired=2)
        self.wait_for("s", expired=1, in_flight=1)
        self.assertEqual([event["data"] for event in self.end(held)], ["taken"])
        self.assertEqual([(event["data"], event["attempt"]) for event in self.take("s", 1)], [("taken", 2)])

    def test_ttl_of_a_subscription(self):
        self.create("s", "--ttl", "100ms")
        started = time.monotonic()
        self.tool("pub", "a", "1", "--ttl", "1h")  # whichever ends first
        self.wait_for("s", expired=1, queued=0)
        self.assertGreaterEqual(time.monotonic() - started, 0.1)
        self.tool("subscription", "update", "s", "--ttl", "1h")
        self.create("witness", "--ttl", "100ms")
        self.tool("pub", "a", "2")
        self.wait_for("witness", expired=1)
        self.assertEqual([event["data"] for event in self.take("s", 1)], [2])
        self.tool("subscription", "update", "s", "--ttl", "0")  # none
        self.tool("pub", "a", "3")
        self.wait_for("witness", expired=2)
        self.tool("sub", "--name", "s", "--ttl", "0", "--dead-letter-expired", "--timeout", "50ms", status=2)
        self.assertIn("--dead-letter-expired is not its value", self.error)
        self.wait_for("s", matched=3, expired=1, acked=1, queued=1)
        self.tool("subscription", "update", "s", "--ttl", "100ms")  # holds for what has waited for longer, too
        self.wait_for("s", expired=2, queued=0)

    def test_delay(self):
        self.create("s")
        member = self.start(ARGUMENTS.shmtool, "sub", "--name", "s", "--count", "3", "--timeout", "15s")
        self.wait_for("s", members=1)
        due = time.monotonic() + 0.5
        self.tool("pub", "a", "late", "--delay", "500ms")
        self.tool("pub", "a", "later", "--delay", "700ms")
        row = self.books("s")
        if time.monotonic() < due:
            self.assertEqual([row[key] for key in ("matched", "queued", "retry_waiting", "delivered")], [2, 2, 0, 0])
        self.tool("pub", "a", "at once")
        lines = []
        for line in member.stdout:
            lines.append((json.loads(line), time.monotonic()))
        self.assertEqual(member.wait(PATIENCE), 0)
        self.assertEqual([(event["data"], event["delivery"], event["attempt"]) for event, _ in lines],
                         [("at once", 3, 1), ("late", 1, 1), ("later", 2, 1)])
        self.assertGreaterEqual(lines[1][1], due)
        self.assertGreaterEqual(lines[2][1], due + 0.2)
        self.wait_for("s", acked=3, redelivered=0, lag=0)

    def test_delay_outlives_the_exchange(self):
        self.create("s")
        due = time.monotonic() + 1
        self.tool("pub", "a", "late", "--delay", "1s")
        self.tool("pub", "a", "hours", "--delay", "2h", "--name", "shop")
        self.tool("pub", "a", "at once")
        self.restart()
        self.wait_for("s", queued=3, retry_waiting=0)
        self.assertEqual([event["data"] for event in self.take("s", 2)], ["at once", "late"])
        self.assertGreaterEqual(time.monotonic(), due)
        found = json.loads(self.tool("explain", "s", "shop/1", "--json"))
        self.assertEqual((found["state"], found["attempt"]), ("delayed", 1))
        self.assertGreater(found["due_ns"], time.time_ns() + HOUR_NS)
        self.assertEqual(self.tool("subscription", "purge", "s"), b"purged 1 events\n")
        self.wait_for("s", acked=2, purged=1, queued=0, lag=0)

    def test_delay_beyond_the_time_to_live(self):
        self.create("s")
        self.create("t", "--ttl", "1h")  # begins when the delay is over
        self.tool("pub", "a", "x", "--delay", "300ms", "--ttl", "100ms")
        self.tool("pub", "a", "y", "--delay", "300ms", "--ttl", "1h")
        self.assertEqual([event["data"] for event in self.take("s", 1)], ["y"])
        self.wait_for("s", expired=1, acked=1, queued=0)
        self.wait_for("t", expired=1, queued=1)

    def test_own_numbers(self):
        self.create("s")
        self.tool("pub", "a", "--lines", "-", "--name", "shop", "--sequence", "100", stdin=b"a\nb\nc\n")
        # Back from a crash: it is not sure what got out, and begins again.
        self.assertEqual(self.tool("pub", "a", "--lines", "-", "--name", "shop", "--sequence", "100",
                                   stdin=b"a\nb\nc\nd\ne\n"), b"published 5 events\n")
        self.restart()
        self.tool("pub", "a", "e", "--name", "shop", "--sequence", "104")
        self.tool("pub", "a", "gap", "--name", "shop", "--sequence", "200")
        self.tool("pub", "a", "next", "--name", "shop")
        row = self.publisher("shop")
        self.assertEqual([row[key] for key in ("committed", "routed", "duplicates", "unroutable", "in_ring")],
                         [11, 7, 4, 0, 0])
        table = [line.split() for line in self.tool("stat").decode().splitlines()]
        self.assertIn(["PUBLISHER", "COMMITTED", "ROUTED", "UNROUTABLE", "DUPLICATES", "IN", "RING", "BACK-PRESSURED"], table)
        self.assertIn(["shop", "11", "7", "0", "4", "0", "0"], table)
        self.assertEqual([(event["sequence"], event["data"], event["attempt"]) for event in self.take("s", 7)],
                         [(100, "a", 1), (101, "b", 1), (102, "c", 1), (103, "d", 1), (104, "e", 1), (200, "gap", 1),
                          (201, "next", 1)])
        self.wait_for("s", matched=7, acked=7)
        self.tool("pub", "a", "x", "--name", "other", "--sequence", "100")  # numbers are each publisher's own
        self.wait_for("s", matched=8)

    def test_retry_delays(self):
        delays = [20, 60]
        self.create("s", "--retry-delays", "20ms,60ms", "--max-deliveries", "5", "--backoff", "1h:1h:1")
        self.tool("pub", "a", "poison")
        self.take("s", 5, "--verdict", "nack")
        (letter,) = self.letters("s")
        times = [attempt["time_ns"] for attempt in letter["attempts"]]
        self.assertEqual((letter["reason"], len(times)), ("max_deliveries", 5))
        for delay, (failed, again) in zip([*delays, delays[-1], delays[-1]], itertools.pairwise(times), strict=True):
            self.assertGreaterEqual(again - failed, delay * 1_000_000)
        self.tool("sub", "--name", "s", "--retry-delays", "20ms,0.06s", "--timeout", "50ms")  # the same, said otherwise
        self.tool("sub", "--name", "s", "--retry-delays", "20ms", "--timeout", "50ms", status=2)
        self.tool("subscription", "update", "s", "--retry-delays", "2h")
        self.tool("dlq", "requeue", "s", "--all")
        self.take("s", 1, "--verdict", "nack")
        self.wait_for("s", retry_waiting=1)
        found = json.loads(self.tool("explain", "s", "1", "--json"))
        self.assertGreater(found["due_ns"], time.time_ns() + HOUR_NS)
        self.tool("subscription", "purge", "s")
        self.tool("subscription", "update", "s", "--retry-delays", "", "--backoff", "1ms:1ms:1")  # the back-off counts
        self.tool("pub", "a", "poison")
        self.assertEqual([event["attempt"] for event in self.take("s", 5, "--verdict", "nack")], [1, 2, 3, 4, 5])

    def test_overflow_into_dead_letters(self):
        self.create("s", "--max-events", "3", "--overflow", "dead-letter")
        self.tool("pub", "a", "--lines", "-", stdin=b"1\n2\n3\n4\n5\n")
        self.wait_for("s", matched=5, queued=3, dlq_size=2, dropped={})
        self.assertEqual([(letter["delivery"], letter["data"], letter["reason"], letter["attempts"])
                          for letter in self.letters("s")], [(4, 4, "overflow", []), (5, 5, "overflow", [])])
        self.restart()
        self.assertEqual([event["data"] for event in self.take("s", 3)], [1, 2, 3])
        self.assertEqual(self.tool("dlq", "requeue", "s", "--reason", "overflow"), b"requeued 2 dead letters\n")
        self.assertEqual({(event["data"], event["attempt"]) for event in self.take("s", 2)}, {(4, 1), (5, 1)})
        # Where the dead-letter log has no room either, publishers wait.
        self.tool("subscription", "update", "s", "--max-dead", "0")
        self.tool("pub", "a", "--lines", "-", stdin=b"1\n2\n3\n")
        self.tool("pub", "a", "4", "--timeout", "100ms", status=1)
        self.wait_for("s", queued=3, dlq_size=0, matched=8)
        self.tool("subscription", "update", "s", "--max-dead", "1MiB")
        self.wait_for("s", queued=3, dlq_size=1, matched=9)

    def test_dead_letter_topic(self):
        self.create("orders", "--dead-letter-topic", "dead.orders", patterns=("orders.#",))
        self.create("watch", patterns=("dead.#",))
        self.tool("pub", "orders.eu", '{"x" :  1}', "--name", "shop", "--key", "k", "--header", "h=v")
        self.take("orders", 1, "--verdict", "reject")
        line = self.tool("sub", "--name", "watch", "--count", "1", "--timeout", "15s")
        self.assertIn(b'"data":{"x" :  1}}', line)  # byte for byte
        event = json.loads(line)
        self.assertEqual([event[key] for key in ("topic", "key", "publisher", "sequence", "delivery", "attempt")],
                         ["dead.orders", "k", "@dead-letters", 1, 1, 1])
        self.assertEqual(event["headers"], {
            "h": "v", "dead-letter-subscription": "orders", "dead-letter-reason": "rejected",
            "dead-letter-topic": "orders.eu", "dead-letter-publisher": "shop", "dead-letter-sequence": "1",
            "dead-letter-delivery": "1", "dead-letter-attempts": "1"})
        self.wait_for("orders", dlq_size=1)  # it is there, too
        row = self.publisher("@dead-letters")
        self.assertEqual([row[key] for key in ("committed", "routed", "in_ring")], [1, 1, 0])
        self.restart()
        self.tool("dlq", "requeue", "orders", "--all")
        self.take("orders", 1, "--verdict", "reject")
        (event,) = self.take("watch", 1)
        self.assertEqual((event["sequence"], event["headers"]["dead-letter-attempts"]), (2, "2"))
        self.tool("subscription", "update", "orders", "--dead-letter-topic", "")  # to none
        self.tool("dlq", "requeue", "orders", "--all")
        self.take("orders", 1, "--verdict", "reject")
        self.wait_for("orders", dlq_size=1, dead_lettered=3)
        self.wait_for("watch", matched=2, acked=2)

    def test_dead_letters_do_not_go_round(self):
        self.create("orders", "--dead-letter-topic", "dead.orders", patterns=("orders.#",))
        self.create("watch", patterns=("dead.#",))
        comes_back = "its dead letters would come back to it, by topic "
        for command, says in (
                (["create", "all", "#", "--dead-letter-topic", "dead"], f"'all': {comes_back}'dead': "),
                (["create", "back", "dead.*", "--dead-letter-topic", "orders.again"], f"'back': {comes_back}'dead.orders'"),
                (["update", "watch", "--dead-letter-topic", "dead.dead"], f"'watch': {comes_back}'dead.dead'"),
                (["update", "watch", "--dead-letter-topic", "orders.again"], f"'watch': {comes_back}'dead.orders'"),
                (["update", "orders", "dead.#"], f"'orders': {comes_back}'dead.orders'")):
            self.assert_refused("subscription", *command, says=says)
        self.assert_refused("pub", "a", "x", "--name", "@dead-letters", says="@dead-letters")
        self.tool("pub", "orders.eu", "x")
        self.take("orders", 1, "--verdict", "reject")
        self.wait_for("watch", matched=1, queued=1)

    def test_usage(self):
        self.create("s")
        for option in ("--ttl", "--delay"):
            for wrong in ("", "x", "5x", "-1s", "1e400s", "nan", "1s,2s", "9999999999h"):
                self.assert_refused("pub", "a", "x", option, wrong, says=f"{option}: ")
        for wrong in ("", "0", "-1", "x", "18446744073709551616"):
            self.assert_refused("pub", "a", "x", "--name", "p", "--sequence", wrong, says="--sequence: ")
        self.assert_refused("pub", "a", "x", "--sequence", "5", says="--sequence")
        for option in ("--ttl", "--delay", "--sequence"):
            self.tool("pub", "a", "x", option, status=2)
            self.assertIn(option, self.error)
        for option, says, wrongs in (
                ("--ttl", "ttl", ("", "x", "-1s", "1d", "8761h", "9999999999h")),
                ("--retry-delays", "retry", (",", "20ms,", "20ms,,30ms", "20ms 30ms", "20ms;30ms", "-1s", "8761h", "x",
                                             ",".join(["1s"] * 65))),
                ("--overflow", "--overflow", ("", "explode", "dead_letter")),
                ("--dead-letter-topic", "dead_letter_topic", ("a b", "a..b", ".", "a.#", "*", "x" * 256))):
            for wrong in wrongs:
                self.assert_refused("subscription", "create", "t", "#", option, wrong, says=says)
                self.assert_refused("subscription", "update", "s", option, wrong, says=says)
                self.assert_refused("sub", "b", option, wrong, "--timeout", "50ms", says=says)
        self.wait_for("s", matched=0)


class Keep(Members):
    """Last values, and ids of events."""

    def values(self, *arguments):
        return [(event["topic"], event["data"])
                for event in self.events(self.tool("sub", *arguments, "--from", "last", "--timeout", "15s"))]

    def pub(self, topic, value, *options):
        self.tool("pub", topic, value, "--name", "shop", *options)

    def test_last_values(self):
        self.tool("subscription", "create", "@last", "price.#")
        for round in range(3):
            for topic in ("price.a", "price.b", "other"):
                self.pub(topic, f"{topic} {round}")
        self.pub("price.a", "price.a 3")
        last = [("price.b", "price.b 2"), ("price.a", "price.a 3")]
        self.assertEqual(self.values("#", "--count", "2"), last)
        self.kill(self.process)
        self.process = self.exchange()
        self.assertEqual(self.values("price.*", "--name", "late", "--count", "1"), last[:1])
        self.assertEqual(self.values("--name", "late", "--count", "1"), last[1:])  # what is in it, nothing twice
        self.pub("price.b", "new")
        self.assertEqual(self.values("price.b", "--name", "later", "--count", "1"), [("price.b", "new")])
        self.assertEqual(self.events(self.tool("peek", "@last"))[-1]["data"], "new")
        self.tool("subscription", "remove", "@last")
        self.tool("sub", "#", "--from", "last", status=1)
        self.assertIn("subscription create @last", self.error)

    def test_last_values_are_for_nobody_else(self):
        for arguments in (["sub", "--name", "@last"], ["sub", "#", "--from", "first"], ["sub", "#", "--name", "@mine"],
                          ["subscription", "create", "@last", "#", "--group"],
                          ["subscription", "create", "@ids", "#", "--max-events", "10"]):
            self.tool(*arguments, status=1 if arguments[-1] == "@last" else 2)
        self.assertEqual(self.stat()["subscriptions"], [])

    def test_event_ids(self):
        self.tool("subscription", "create", "@ids", "order.#", "--ttl", "300ms")
        self.tool("subscription", "create", "all", "#")
        self.pub("order.new", "1", "--header", "event-id=o-1")
        known = time.monotonic()
        self.tool("pub", "order.new", "2", "--header", "event-id=o-1", "--name", "another")
        again = time.monotonic() - known
        self.pub("order.new", "3", "--header", "event-id=o-2")
        self.pub("else", "4", "--header", "event-id=o-2")
        rows = {row["name"]: row["duplicates"] for row in self.stat()["publishers"]}
        if again < 0.2:  # else the machine was so busy that the window may have been over
            self.assertEqual(rows, {"shop": 0, "another": 1})
        self.wait_for("@ids", queued=0)
        self.kill(self.process)
        self.process = self.exchange()
        self.pub("order.new", "5", "--header", "event-id=o-1")
        expected = [1, 3, 4, 5] if rows["another"] else [1, 2, 3, 4, 5]
        got = self.events(self.tool("sub", "--name", "all", "--count", str(len(expected)), "--timeout", "15s"))
        self.assertEqual([event["data"] for event in got], expected)
