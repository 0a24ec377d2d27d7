"""Groups, ordered subscriptions, and what people do to subscriptions, as a user meets them: groups of programs_test.py."""
import collections
import json
import os
import signal
import tempfile

from programs_support import ARGUMENTS, PATIENCE, Programs


class Members(Programs):
    """Members that are killed, stopped and read."""

    def setUp(self):
        super().setUp()
        self.output = {}  # of members: descriptors by process
        self.process = self.exchange()

    def create(self, name, *options):
        self.tool("subscription", "create", name, "#", "--backoff", "1ms:20ms:2", "--jitter", "0", *options)

    def member(self, name, *arguments):
        """One more `shmtool sub` that has joined. It prints into a file: a pipe that nobody reads would stop it."""
        before = self.books(name)["members"]
        with tempfile.TemporaryFile(dir=self.directory) as output:
            process = self.start(ARGUMENTS.shmtool, "sub", "--name", name, *arguments, stdout=output)
            self.output[process.pid] = os.dup(output.fileno())
        self.addCleanup(os.close, self.output[process.pid])
        self.wait_for(name, members=before + 1)
        return process

    def wait_for(self, name, **places):
        """Until the books of the subscription say all of this."""
        row = {}

        def reached():
            row.update(self.books(name))
            return all(row[place] == count for place, count in places.items())

        self.wait_until(reached, f"{places} of {name}")
        return row

    def kill(self, process):
        process.kill()
        process.wait(PATIENCE)

    def end(self, process):
        """Ends a member as Ctrl-C would; what it printed."""
        process.send_signal(signal.SIGINT)
        self.finish(process)
        return self.printed(process)

    def printed(self, process):
        """What a member that has ended had printed."""
        descriptor = self.output[process.pid]
        return self.events(os.pread(descriptor, os.fstat(descriptor).st_size, 0))

    @staticmethod
    def events(output):
        return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]

    def publish_keys(self, keys, rounds):
        lines = [json.dumps({"topic": "a", "key": f"k{key}", "data": turn}) for turn in range(rounds) for key in range(keys)]
        self.tool("pub", "--ndjson", "-", stdin="\n".join(lines).encode())

    def assert_keys_in_order(self, events, first=0):
        """Of each key, every event once, in order of publishing."""
        of_key = collections.defaultdict(list)
        for event in events:
            of_key[event["key"]].append(event["data"])
        for key, data in of_key.items():
            self.assertEqual(data, list(range(first, first + len(data))), key)


class Group(Members):
    def test_members_share_by_credit(self):
        self.create("g", "--group", "--max-in-flight", "4")
        left = self.member("g", "--verdict", "none")
        right = self.member("g", "--verdict", "none")
        self.tool("pub", "a", "x", "--count", "10")
        row = self.wait_for("g", in_flight=8, queued=2)  # each as much as its credit
        self.assertEqual((row["members"], row["delivered"], row["acked"]), (2, 8, 0))
        self.kill(left)
        self.wait_for("g", members=1, in_flight=4, retry_waiting=4, queued=2)  # the other has no credit for them
        held = self.printed(left)
        self.assertEqual(len(held), 4)
        helper = self.tool("sub", "--name", "g", "--count", "6", "--timeout", "10s")
        attempts = {event["delivery"]: event["attempt"] for event in self.events(helper)}
        taken = {event["delivery"] for event in held}
        self.assertEqual({delivery for delivery, attempt in attempts.items() if attempt == 2}, taken)
        self.assertEqual(sorted(attempts.values()), [1, 1, 2, 2, 2, 2])
        kept = self.end(right)  # gives back what it held
        rest = self.events(self.tool("sub", "--name", "g", "--count", "4", "--timeout", "10s"))
        self.assertEqual({(event["delivery"], event["attempt"]) for event in rest},
                         {(event["delivery"], 2) for event in kept})
        row = self.wait_for("g", acked=10, lag=0, members=0)
        self.assertEqual((row["delivered"], row["redelivered"]), (18, 8))

    def test_each_event_to_one_of_them(self):
        self.create("g", "--group", "--max-in-flight", "16")
        members = [self.member("g") for _ in range(3)]
        self.tool("pub", "a", "x", "--count", "3000")
        self.wait_for("g", acked=3000)
        shares = [[event["delivery"] for event in self.end(member)] for member in members]
        self.assertEqual(sorted(sum(shares, [])), list(range(1, 3001)))
        self.assertTrue(all(shares), [len(share) for share in shares])
        self.assertEqual(self.books("g")["redelivered"], 0)

    def test_death_hands_on(self):
        """Taken ones come again with the next attempt; what the dead member had not taken is not charged."""
        self.create("g", "--group", "--max-in-flight", "8")
        victim = self.member("g", "--verdict", "none")
        self.tool("pub", "a", "x", "--count", "3")
        self.wait_for("g", in_flight=3)
        victim.send_signal(signal.SIGSTOP)
        heir = self.member("g")
        self.tool("pub", "a", "x", "--count", "6")
        row = self.wait_for("g", in_flight=3, retry_waiting=0)
        self.assertEqual(row["matched"], 9)
        self.kill(victim)
        row = self.wait_for("g", acked=9, members=1)
        self.assertEqual({event["delivery"]: event["attempt"] for event in self.end(heir)},
                         {delivery: 2 if delivery <= 3 else 1 for delivery in range(1, 10)})
        self.assertEqual((row["delivered"], row["redelivered"], row["timed_out"]), (12, 3, 0))

    def test_ordered(self):
        self.create("o", "--group", "--ordered")
        victim = self.member("o", "--verdict", "none")
        self.tool("pub", "a", "x", "--count", "20")
        self.wait_for("o", in_flight=1, queued=19)
        heir = self.start(ARGUMENTS.shmtool, "sub", "--name", "o", "--count", "20", "--timeout", "15s")
        self.wait_for("o", members=2, in_flight=1)  # it has nothing to do yet
        self.kill(victim)
        got = [(event["delivery"], event["attempt"]) for event in self.events(self.finish(heir))]
        self.assertEqual(got, [(1, 2)] + [(delivery, 1) for delivery in range(2, 21)])
        # A poison event holds back its successors until it is dead.
        self.tool("subscription", "update", "o", "--max-deliveries", "2")
        self.tool("pub", "a", "x", "--count", "2")
        self.tool("sub", "--name", "o", "--verdict", "nack", "--count", "2", "--timeout", "10s")
        self.wait_for("o", dlq_size=1, queued=1, acked=20)

    def test_by_key(self):
        for order in ((), ("--ordered",)):
            with self.subTest(order=order):
                name = "k" + "".join(order)
                self.create(name, "--group", "--ordered-by-key", *order)
                victim = self.member(name, "--verdict", "none")
                heir = self.member(name)
                self.publish_keys(12, 50)
                # The heir acks all of its keys; the victim keeps its own: all of them, or one of each at a time.
                kept = 50 if order else 1
                self.wait_until(lambda: self.books(name)["acked"] + kept * len(self.printed(victim)) == 600,
                                "the heir has done its part")
                row = self.wait_for(name, in_flight=len(self.printed(victim)))
                mine = row["acked"]
                self.assertTrue(0 < mine < 600 and mine % 50 == 0, row)
                self.kill(victim)
                self.wait_for(name, acked=600, members=1)
                held = self.printed(victim)
                self.assertEqual(len(held), row["in_flight"])
                got = self.end(heir)
                self.assertEqual(len({event["delivery"] for event in got}), 600)
                self.assert_keys_in_order(got)
                again = {event["delivery"]: event["attempt"] for event in got if event["attempt"] > 1}
                self.assertEqual(again, {event["delivery"]: 2 for event in held})
                self.assertFalse({event["key"] for event in held} & {event["key"] for event in got[:mine]})
                self.tool("subscription", "remove", name)

    def test_options(self):
        self.create("plain")
        self.create("g", "--group", "--max-in-flight", "8")
        self.create("o", "--ordered")
        for name, option in (("plain", ["--group"]), ("plain", ["--ordered"]), ("g", ["--ordered-by-key"]),
                             ("g", ["--max-in-flight", "16"]), ("o", ["--group"])):
            self.tool("sub", "--name", name, *option, "--timeout", "50ms", status=2)
            self.assertIn(f"subscription '{name}': it exists, and {' '.join(option)} is not its value", self.error)
            self.tool("subscription", "update", name, *option, status=2)
            self.assertIn("can't change", self.error)
        self.tool("sub", "#", "--group", "--timeout", "50ms", status=2)  # nobody could join it
        self.assertIn("no name", self.error)
        self.tool("subscription", "create", "t", "#", "--max-in-flight", "0", status=2)
        self.tool("subscription", "create", "t", "#", "--ordered", "--guarantee", "at-most-once", status=2)
        first = self.member("g", "--group", "--max-in-flight", "7")  # as it is there: rounded up to 8
        second = self.member("g")
        self.assertEqual(self.books("g")["members"], 2)
        alone = self.member("o")
        self.tool("sub", "--name", "o", "--timeout", "50ms", status=3)
        self.assertIn("subscription 'o': it has a member already", self.error)
        for process in (first, second, alone):
            self.end(process)


class Operate(Members):
    def test_pause_and_resume(self):
        self.create("s")
        holder = self.member("s", "--verdict", "none")
        self.tool("pub", "a", "x", "--count", "3")
        self.wait_for("s", in_flight=3)
        self.assertEqual(self.tool("subscription", "pause", "s"), b"")
        self.tool("subscription", "pause", "s")  # it is
        self.tool("pub", "a", "x", "--count", "5")
        self.wait_for("s", paused=True, in_flight=3, queued=5)  # what was taken stays with its member
        self.end(holder)
        self.wait_for("s", in_flight=0, queued=5, retry_waiting=3)
        self.assertEqual(self.tool("sub", "--name", "s", "--timeout", "200ms"), b"")
        self.kill(self.process)
        self.assertEqual(self.books("s")["paused"], True)
        self.exchange()
        self.assertEqual(self.tool("sub", "--name", "s", "--timeout", "200ms"), b"")
        self.wait_for("s", paused=True, queued=5, retry_waiting=3, delivered=3)
        self.assertEqual(self.tool("subscription", "resume", "s"), b"")
        self.tool("subscription", "resume", "s")
        got = self.events(self.tool("sub", "--name", "s", "--count", "8", "--timeout", "10s"))
        self.assertEqual({event["delivery"]: event["attempt"] for event in got},
                         {delivery: 2 if delivery <= 3 else 1 for delivery in range(1, 9)})
        self.wait_for("s", paused=False, acked=8, lag=0, delivered=11)

    def test_pause_takes_back_what_was_not_taken(self):
        for options in ((), ("--group",)):
            with self.subTest(options=options):
                name = "s" + "".join(options)
                self.create(name, *options)
                member = self.member(name)
                os.kill(member.pid, signal.SIGSTOP)
                self.tool("pub", "a", "x", "--count", "10")
                self.tool("subscription", "pause", name)
                os.kill(member.pid, signal.SIGCONT)
                self.tool("pub", "a", "x", "--count", "10")
                row = self.wait_for(name, queued=20)
                self.assertEqual((row["delivered"], row["acked"], row["in_flight"]), (0, 0, 0))
                self.tool("subscription", "resume", name)
                self.wait_for(name, acked=20)
                got = [(event["delivery"], event["attempt"]) for event in self.end(member)]
                self.assertEqual(got, [(delivery, 1) for delivery in range(1, 21)])
                self.assertEqual(self.books(name)["delivered"], 20)
                self.tool("subscription", "remove", name)

    def test_purge(self):
        self.create("s", "--max-in-flight", "2")
        holder = self.member("s", "--verdict", "none")
        self.tool("pub", "a", "x", "--count", "10")
        self.wait_for("s", in_flight=2, queued=8)
        self.assertEqual(self.tool("subscription", "purge", "s"), b"purged 8 events\n")
        self.wait_for("s", in_flight=2, queued=0, purged=8)
        self.tool("subscription", "pause", "s")  # so that they stay in the retry log
        self.end(holder)
        self.wait_for("s", in_flight=0, retry_waiting=2)
        self.assertEqual(self.tool("subscription", "purge", "s"), b"purged 2 events\n")
        self.wait_for("s", purged=10, lag=0, delivered=2, acked=0)
        self.tool("subscription", "resume", "s")
        self.tool("pub", "a", "wrong")
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "1", "--timeout", "10s")
        self.assertEqual(self.tool("subscription", "purge", "s"), b"purged 0 events\n")  # dead letters stay
        self.wait_for("s", purged=10, dlq_size=1)
        self.tool("pub", "a", "next")
        (event,) = self.events(self.tool("sub", "--name", "s", "--count", "1", "--timeout", "10s"))
        self.assertEqual((event["delivery"], event["data"]), (12, "next"))

    def test_remove(self):
        self.create("s")
        member = self.member("s")
        self.tool("subscription", "remove", "s", "--pending", "drop", status=3)
        self.assertIn("subscription 's': it has a live member: stop that one first", self.error)
        self.end(member)
        self.tool("pub", "a", "x", "--count", "3")
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "1", "--timeout", "10s")
        before = self.books("s")
        self.tool("subscription", "remove", "s", status=1)
        self.assertIn("subscription 's': it holds 2 events and 1 dead letters: ", self.error)
        self.tool("subscription", "remove", "s", "--pending", "burn", status=2)
        self.assertEqual(self.books("s"), before)
        self.tool("subscription", "remove", "s", "--pending", "drop")
        self.assertEqual(self.stat()["subscriptions"], [])
        self.assertEqual([path for path in os.listdir(f"{self.directory}/test") if path.startswith("sub.")], [])
        self.create("s")  # of the same name, and nothing of the old one
        self.assertEqual((self.books("s")["matched"], self.books("s")["dlq_size"]), (0, 0))
        self.tool("subscription", "remove", "s")

    def test_remove_and_keep(self):
        self.create("s")
        self.tool("pub", "a", "x", "--count", "3")
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "1", "--timeout", "10s")
        self.tool("subscription", "remove", "s", "--pending", "keep")
        self.tool("pub", "a", "late")  # matches nothing any more
        self.wait_for("s", matched=3, queued=2, dlq_size=1)
        self.kill(self.process)
        self.exchange()
        self.assertEqual(len(self.events(self.tool("sub", "--name", "s", "--count", "2", "--timeout", "10s"))), 2)
        self.wait_for("s", acked=2, dlq_size=1)  # its dead letter keeps it
        self.tool("dlq", "purge", "s")
        self.wait_until(lambda: not self.stat()["subscriptions"], "it has gone")
        self.create("empty")
        self.tool("subscription", "remove", "empty", "--pending", "keep")
        self.assertEqual(self.stat()["subscriptions"], [])

    def test_refusals(self):
        self.create("s")
        for verb in ("pause", "resume", "purge", "remove"):
            self.tool("subscription", verb, "nobody", status=1)
            self.assertIn("subscription 'nobody': there is none of this name", self.error)
            self.tool("subscription", verb, status=2)
            self.tool("subscription", verb, "s", "s", status=2)
            self.assertIn(b"NAME", self.tool("subscription", verb, "--help"))
        self.kill(self.process)
        for verb in ("pause", "resume", "purge", "remove"):
            self.tool("subscription", verb, "s", status=3)
        self.assertEqual((self.books("s")["paused"], self.books("s")["purged"]), (False, 0))
