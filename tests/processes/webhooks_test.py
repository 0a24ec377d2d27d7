#!/usr/bin/env python3
"""Real events from one publisher process to three subscriber processes: each byte, each event once, in order, nobody
else's; and the books of stat while they flow and after.

What must arrive is computed here from the bytes of the input, not by the programs.
"""
import hashlib
import json
import pathlib
import random
import sys
import threading
import time

sys.dont_write_bytecode = True
import support  # noqa: E402  (nothing is to be written beside the sources)

PATTERNS = {
    "all": ("github.#", lambda words: words[0] == "github"),
    "issues": ("github.issues.*", lambda words: words[:2] == ["github", "issues"] and len(words) == 3),
    "created": ("#.created", lambda words: words[-1] == "created"),
}


def raw_events(lines):
    """(topic, bytes of data) of each line; `data` is the last member of each object."""
    events = []
    for line in lines:
        whole = json.loads(line)
        raw = line[line.index(b'"data":') + len(b'"data":'):line.rindex(b"}")].strip()
        assert json.loads(raw) == whole["data"], "data is not the last member"
        events.append((whole["topic"], raw))
    return events


class Taker(threading.Thread):
    """Reads one `shmtool sub` and compares each line with what must come next."""

    def __init__(self, process, events, wanted, repeat):
        super().__init__(daemon=True)
        self.process, self.events, self.repeat = process, events, repeat
        self.mine = [index for index, (topic, _) in enumerate(events) if wanted(topic.split("."))]
        self.count = 0
        self.problem = None
        self.digest = hashlib.sha256()

    def expected_digest(self):
        digest = hashlib.sha256()
        for _ in range(self.repeat):
            for index in self.mine:
                digest.update(self.events[index][1])
        return digest.hexdigest()

    def run(self):
        for line in self.process.stdout:
            at = line.index(b',"data":')
            head = json.loads(line[:at] + b"}")
            payload = line[at + len(b',"data":'):-2]
            self.digest.update(payload)
            lap, place = divmod(self.count, len(self.mine))
            topic, raw = self.events[self.mine[place]]
            wanted = (topic, "webhooks", lap * len(self.events) + self.mine[place] + 1, self.count + 1, 1)
            got = tuple(head[key] for key in ("topic", "publisher", "sequence", "delivery", "attempt"))
            if self.problem is None and (got != wanted or payload != raw):
                self.problem = f"{got} came where {wanted} was expected, payload equal: {payload == raw}"
            self.count += 1


class Webhooks(support.Processes):
    def flow(self, path, repeat):
        events = raw_events(path.read_bytes().splitlines())
        self.exchange()
        takers = {}
        for name, (pattern, wanted) in PATTERNS.items():
            count = repeat * sum(wanted(topic.split(".")) for topic, _ in events)
            self.assertGreater(count, 0)
            process = self.start(support.ARGUMENTS.shmtool, "sub", pattern, "--name", name, "--count", str(count))
            takers[name] = Taker(process, events, wanted, repeat)
            takers[name].start()
        self.wait_until(lambda: sum(row["members"] for row in self.stat()["subscriptions"]) == 3, "all have joined")
        begin = time.monotonic()
        publisher = self.start(support.ARGUMENTS.shmtool, "pub", "--ndjson", str(path), "--repeat", str(repeat), "--name",
                               "webhooks")
        looks = 0
        moments = random.Random(repeat)
        while any(taker.is_alive() for taker in takers.values()):
            self.assertLess(time.monotonic() - begin, support.PATIENCE, "the events do not arrive")
            self.stat()
            looks += 1
            time.sleep(moments.uniform(0, 0.05))
        out, error = publisher.communicate(timeout=support.PATIENCE)
        total = repeat * len(events)
        self.assertEqual((publisher.returncode, out, error), (0, f"published {total} events\n".encode(), b""))
        document = self.stat()
        seconds = time.monotonic() - begin
        books = {row["name"]: row for row in document["subscriptions"]}
        for name, taker in takers.items():
            self.assertEqual(taker.process.wait(support.PATIENCE), 0, taker.process.stderr.read())
            self.assertIsNone(taker.problem, name)
            self.assertEqual(taker.count, repeat * len(taker.mine), name)
            self.assertEqual(taker.digest.hexdigest(), taker.expected_digest(), name)
            row = books[name]
            self.assertEqual((row["matched"], row["delivered"], row["acked"], row["redelivered"], row["lag"], row["members"]),
                             (taker.count, taker.count, taker.count, 0, 0, 0), row)
        row = next(row for row in document["publishers"] if row["name"] == "webhooks")
        self.assertEqual((row["committed"], row["in_ring"]), (total, 0))
        unroutable = repeat * sum(not any(wanted(topic.split(".")) for _, wanted in PATTERNS.values()) for topic, _ in events)
        self.assertEqual(row["unroutable"], unroutable)
        print(f"{total} events, {sum(taker.count for taker in takers.values())} deliveries, {looks} looks at stat, "
              f"{seconds:.1f} s", file=sys.stderr)

    def test_real_events(self):
        path = pathlib.Path(support.ARGUMENTS.source).resolve().parent / "shared" / "data" / "github-webhooks.ndjson"
        if not path.exists():
            self.skipTest("the sample of real events is not beside the sources")
        self.flow(path, 100)

    def test_generated_events(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        dice = random.Random(seed)
        values = ['{"a" : [1, "]}" ],"b":{"c":null}}', "[ ]", "1.50", "-0e5", "true", '{"\\u00fc":"ü\\n\\""}', "{}"]
        lines = []
        for _ in range(300):
            topic = ".".join([dice.choice(["github", "other"]), dice.choice(["issues", "push"]), dice.choice(["created", "x"])])
            value = dice.choice(values) if dice.random() < 0.7 else json.dumps({"x": "y" * dice.randrange(30_000)})
            lines.append(f'{{"topic":"{topic}","data": {value} }}')
        path = pathlib.Path(self.directory) / "events.ndjson"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.flow(path, 20)


if __name__ == "__main__":
    sys.exit(support.main())
