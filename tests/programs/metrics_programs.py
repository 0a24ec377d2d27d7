"""Metrics as a Prometheus gets them: a group of programs_test.py."""
import json
import pathlib
import re
import shutil
import socket
import subprocess
import unittest
import urllib.parse
import urllib.request

from programs_support import ARGUMENTS, PATIENCE, Programs

LINE = re.compile(r'(\w+)(?:\{(.*)\})? (\S+)$')


def parse(text):
    """{(name, labels as a sorted tuple): value}"""
    values = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        name, labels, value = LINE.match(line).groups()
        pairs = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels or "")))
        values[name, pairs] = float(value)
    return values


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Metrics(Programs):
    def setUp(self):
        super().setUp()
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.process = self.exchange("--metrics", self.endpoint)

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.endpoint}/metrics", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def value(self, name, values=None, **labels):
        values = values or parse(self.tool("metrics").decode())
        return values[name, tuple(sorted(labels.items()))]

    def some_history(self):
        self.tool("subscription", "create", "s", "#", "--max-deliveries", "2", "--backoff", "1ms:1ms:1")
        self.tool("subscription", "create", "small", "#", "--max-events", "1", "--overflow", "drop-newest")
        self.tool("pub", "a", "x", "--repeat", "100", "--name", "gateway")
        self.tool("pub", "a", "x", "--repeat", "3")
        self.tool("sub", "--name", "s", "--count", "40", "--timeout", "15s")
        self.tool("sub", "--name", "s", "--count", "2", "--verdict", "reject", "--timeout", "15s")

    def test_what_is_served(self):
        self.some_history()
        text = self.scrape()
        served = parse(text)
        stat = next(row for row in self.stat()["subscriptions"] if row["name"] == "s")
        for name, field in (("ackring_matched_events_total", "matched"), ("ackring_acks_total", "acked"),
                            ("ackring_deliveries_total", "delivered"), ("ackring_queued_events", "queued"),
                            ("ackring_dlq_events", "dlq_size"), ("ackring_lag_events", "lag")):
            self.assertEqual(self.value(name, served, subscription="s"), stat[field], name)
        self.assertEqual(self.value("ackring_matched_events_total", served, subscription="s"), 103)
        self.assertEqual(self.value("ackring_nacks_total", served, subscription="s", reason="rejected"), 2)
        self.assertEqual(self.value("ackring_dead_letters_total", served, subscription="s", reason="rejected"), 2)
        self.assertEqual(self.value("ackring_dead_letters_total", served, subscription="s", reason="expired"), 0)
        self.assertEqual(self.value("ackring_dropped_events_total", served, subscription="small", reason="drop-newest"), 102)
        self.assertEqual(self.value("ackring_published_events_total", served, publisher="gateway"), 100)
        self.assertEqual(self.value("ackring_up", served), 1)
        self.assertGreater(self.value("ackring_oldest_unsettled_age_seconds", served, subscription="s"), 0)
        self.assertNotIn('publisher="@', text)
        self.assertGreater(self.value("ackring_publish_to_ack_seconds_count", served, subscription="s"), 0)
        below = [value for (name, labels), value in served.items()
                 if name == "ackring_publish_to_ack_seconds_bucket" and ("subscription", "s") in labels]
        self.assertEqual(below, sorted(below))
        self.assertEqual(below[-1], self.value("ackring_publish_to_ack_seconds_count", served, subscription="s"))

    def test_names_are_bounded_and_the_dead_bus_says_the_same(self):
        self.some_history()
        tap = self.start(ARGUMENTS.shmtool, "tail", "#")
        self.wait_until(lambda: self.value("ackring_ephemeral_subscriptions") == 1, "the tap is there")
        served = parse(self.scrape())
        subscriptions = {dict(labels)["subscription"] for _, labels in served if "subscription" in dict(labels)}
        self.assertEqual(subscriptions, {"s", "small"})
        tap.terminate()
        tap.wait(PATIENCE)
        self.wait_until(lambda: self.value("ackring_ephemeral_subscriptions") == 0, "the tap has gone")
        live = parse(self.tool("metrics").decode())
        self.process.kill()
        self.process.wait(PATIENCE)
        dead = parse(self.tool("metrics").decode())
        self.assertEqual(dead["ackring_up", ()], 0)
        moving = ("ackring_up", "ackring_exchange_uptime_seconds", "ackring_oldest_unsettled_age_seconds")
        still = {key: value for key, value in live.items() if key[0] not in moving}
        self.assertEqual({key: value for key, value in dead.items() if key[0] not in moving}, still)
        self.process = self.exchange("--metrics", self.endpoint)
        again = parse(self.scrape())
        counters = [key for key in live if key[0].endswith("_total") and key[0] != "ackring_exchange_starts_total"]
        self.assertGreater(len(counters), 20)
        for key in counters:
            self.assertEqual(again[key], live[key], key)

    def test_every_metric_is_documented(self):
        self.some_history()
        text = self.tool("metrics").decode()
        document = (pathlib.Path(__file__).parents[2] / "docs/metrics.md").read_text()
        for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE):
            self.assertIn(f"`{name}`", document)

    def test_promtool_and_the_dashboard(self):
        if not shutil.which("promtool"):
            raise unittest.SkipTest("promtool is not there")
        self.some_history()
        done = subprocess.run(["promtool", "check", "metrics"], input=self.tool("metrics"), capture_output=True,
                              timeout=PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        known = set(re.findall(r"^# TYPE (\w+)", self.tool("metrics").decode(), re.MULTILINE))
        known |= {"ackring_publish_to_ack_seconds_bucket", "ackring_publish_to_take_seconds_bucket", "ackring_breaker_state"}
        dashboard = json.loads((pathlib.Path(__file__).parents[2] / "examples/grafana/ackring.json").read_text())
        asked = set(re.findall(r"ackring_\w+", json.dumps(dashboard["panels"])))
        self.assertGreater(len(asked), 12)
        self.assertLessEqual(asked, known)

    def test_a_prometheus_scrapes_it(self):
        if not shutil.which("prometheus"):
            raise unittest.SkipTest("prometheus is not there")
        self.some_history()
        web = f"127.0.0.1:{free_port()}"
        config = pathlib.Path(self.directory) / "prometheus.yml"
        config.write_text("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
                          "scrape_configs: [{job_name: ackring, static_configs: [{targets: ['%s']}]}]\n" % self.endpoint)
        self.start("prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.directory}/tsdb",
                   f"--web.listen-address={web}", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def ask(query):
            try:
                with urllib.request.urlopen(f"http://{web}/api/v1/query?query={urllib.parse.quote(query)}",
                                            timeout=PATIENCE) as answer:
                    return json.load(answer)["data"]["result"]
            except OSError:
                return []

        self.wait_until(lambda: ask("ackring_acks_total{subscription='s'}"), "a scrape")
        self.assertEqual(ask("ackring_acks_total{subscription='s'}")[0]["value"][1], "40")
        self.assertEqual(ask("histogram_quantile(1, ackring_publish_to_ack_seconds_bucket{subscription='s'}) > 0")[0]
                         ["metric"]["job"], "ackring")

    def test_a_port_that_is_taken(self):
        second = self.start(ARGUMENTS.exchange, "--bus", "other", "--log-level", "error", "--metrics", self.endpoint)
        self.assertEqual(second.wait(PATIENCE), 3)
        self.assertRegex(second.stderr.read().decode(),
                         r"ackring-exchange: metrics: can't listen at \S+ \(.*\): give [^\n]+\n")
