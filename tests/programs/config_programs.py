"""What ackring-exchange logs, and the file of settings that it reads."""
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from programs_support import ARGUMENTS, PATIENCE, Programs

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info |warn |error) [a-z_.]+: \S.*$")


class LoggedPrograms(Programs):
    """An exchange whose log is a file of JSON."""

    def setUp(self):
        super().setUp()
        self.environment["ACKRING_LOG_FILE"] = self.log = f"{self.directory}/log"
        self.environment["ACKRING_LOG_FORMAT"] = "json"

    def events(self, name=None):
        """What was logged so far: all, or the fields of one kind of event, with its text."""
        lines = [json.loads(line) for line in pathlib.Path(self.log).read_text(encoding="utf-8").splitlines()]
        return lines if name is None else [{**line["fields"], "text": line["text"]} for line in lines if line["event"] == name]

    def wait_for(self, name, count=1):
        self.wait_until(lambda: len(self.events(name)) >= count, f"{count} times {name}: {self.events()}")
        return self.events(name)[-1]

    def stop(self, process):
        process.terminate()
        self.finish(process)


class Logs(LoggedPrograms):
    def test_who_comes_and_goes(self):
        process = self.exchange("--shards", "2")
        ready = self.wait_for("exchange.ready")
        self.assertEqual((ready["bus"], ready["dir"], ready["pid"], ready["shards"], ready["generation"]),
                         ("test", self.directory, process.pid, 2, 1))
        self.tool("subscription", "create", "s", "#")
        self.assertEqual(self.wait_for("subscription.created")["subscription"], "s")
        member = self.subscriber("--name", "s")
        joined = self.wait_for("member.joined")
        self.assertEqual((joined["subscription"], joined["uid"]), ("s", os.getuid()))
        member.kill()
        self.assertEqual(self.wait_for("member.left"), {**joined, "why": "gone", "text": self.events("member.left")[0]["text"]})
        self.wait_until(lambda: any(left["client"] == joined["client"] and left["members"] == 1 and left["why"] == "gone"
                                    for left in self.events("client.left")), "its client is gone")
        for verb, event in (("pause", "paused"), ("resume", "resumed"), ("purge", "purged"), ("update", "updated"),
                            ("remove", "removed")):
            self.tool("subscription", verb, "s", *(["--ttl", "1h"] if verb == "update" else []))
            self.assertEqual(self.wait_for(f"subscription.{event}")["subscription"], "s")
        self.tool("pub", "t", "x")
        self.wait_for("publisher.opened")
        self.wait_for("publisher.closed")
        self.stop(process)
        self.assertEqual(self.events()[-1]["event"], "exchange.stopped")

    def test_what_clients_do_wrong(self):
        self.exchange("--log-level", "debug")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(f"{self.directory}/test/exchange.sock")
            stranger.send(b"no JSON")
            self.assertIn("JSON", self.wait_for("client.dropped")["why"])
        self.tool("subscription", "pause", "none", status=1)
        refused = self.wait_for("request.refused")
        self.assertEqual((refused["op"], refused["code"]), ("subscription_pause", "not_found"))

    def test_policies(self):
        process = self.exchange()
        self.tool("subscription", "create", "newest", "a", "--max-events", "3", "--overflow", "drop-newest")
        self.tool("subscription", "create", "oldest", "a", "--max-events", "3", "--overflow", "drop-oldest")
        self.tool("subscription", "create", "waits", "b", "--max-events", "3")
        self.tool("pub", "a", "x", "--count", "10")
        self.wait_for("subscription.dropped", 2)
        told = {line["subscription"]: (line["reason"], line["events"]) for line in self.events("subscription.dropped")}
        self.assertEqual(told, {"newest": ("drop-newest", 7), "oldest": ("drop-oldest", 7)})
        publisher = self.start(ARGUMENTS.shmtool, "pub", "b", "x", "--count", "100000000")
        self.assertEqual(self.wait_for("subscription.blocked")["subscription"], "waits")
        publisher.kill()
        self.tool("pub", "a", "x", "--count", "2")  # within ten seconds: it is told at the end
        self.assertEqual(len(self.events("subscription.dropped")), 2)
        self.stop(process)
        self.assertEqual([(line["events"], line["total"]) for line in self.events("subscription.dropped")][2:],
                         [(2, 9), (2, 9)])

    def test_dead_letters(self):
        self.exchange()
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "x")
        self.tool("sub", "--name", "s", "--count", "1", "--verdict", "reject")
        told = self.wait_for("subscription.dead_lettered")
        self.assertEqual((told["subscription"], told["events"]), ("s", 1))

    def test_recovery(self):
        process = self.exchange()
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "x", "--count", "5")
        process.kill()
        process.wait()
        self.exchange()
        ready = self.wait_for("exchange.ready", 2)
        self.assertEqual((ready["subscriptions"], ready["events"], ready["generation"]), (1, 5, 2))

    def test_text_on_stderr(self):
        del self.environment["ACKRING_LOG_FILE"], self.environment["ACKRING_LOG_FORMAT"]
        process = self.exchange()
        self.tool("subscription", "create", "s", "#")
        process.terminate()
        out, error = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (0, b""))  # stdout had `ready`, and nothing else
        lines = error.decode().splitlines()
        for line in lines:
            self.assertRegex(line, LINE)
        self.assertIn(" info  exchange.ready: ", lines[0])
        self.assertIn(" info  exchange.stopped: ", lines[-1])
        process = self.exchange("--log-level", "off")
        process.terminate()
        self.assertEqual(process.communicate(timeout=PATIENCE)[1], b"")

    def test_journal(self):
        del self.environment["ACKRING_LOG_FILE"], self.environment["ACKRING_LOG_FORMAT"]
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as journal:
            status = os.fstat(theirs)
            self.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
            process = self.exchange(stderr=theirs)
            os.close(theirs)
            process.terminate()
            self.finish(process)
            for line in journal.read().splitlines():
                self.assertRegex(line.decode(), r"^<6>exchange\.[a-z]+: ")

    def test_nobody_reads(self):
        """A full pipe on stderr neither stops nor slows it."""
        del self.environment["ACKRING_LOG_FILE"]
        process = self.exchange("--log-level", "debug")
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        begin = time.monotonic()
        while time.monotonic() < begin + 0.5:  # the log is patient for 0.1 s, once
            self.tool("subscription", "create", "s" * 60, "#")
            self.tool("subscription", "remove", "s" * 60)
        seen = os.read(process.stderr.fileno(), 65536)
        self.tool("ping")
        process.terminate()
        _, rest = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)
        lines = [json.loads(line) for line in (seen + rest).splitlines()]
        dropped = sum(line["fields"]["lines"] for line in lines if line["event"] == "log.dropped")
        self.assertGreater(dropped, 30, (len(seen), len(rest), lines[-6:]))
        self.assertEqual(lines[-1]["event"], "exchange.stopped")

    def test_usage(self):
        for wrong in (["--log-level", "loud"], ["--log-format", "xml"], ["--check-config"]):
            done = subprocess.run([ARGUMENTS.exchange, *wrong], env=self.environment, capture_output=True,
                                  timeout=PATIENCE, check=False)
            self.assertEqual((done.returncode, done.stderr.count(b"\n")), (2, 1), (wrong, done.stderr))
        done = subprocess.run([ARGUMENTS.exchange, "--log-file", f"{self.directory}/no/log"], env=self.environment,
                              capture_output=True, timeout=PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (3, 1), done.stderr)


class Config(LoggedPrograms):
    def setUp(self):
        super().setUp()
        self.config = f"{self.directory}/exchange.toml"

    def write(self, text):
        pathlib.Path(self.config).write_text(text, encoding="utf-8")
        os.chmod(self.config, 0o600)

    def reload(self, process, event="config.reloaded"):
        count = len(self.events(event))
        process.send_signal(signal.SIGHUP)
        return self.wait_for(event, count + 1)

    def check(self, status, path=None):
        done = subprocess.run([ARGUMENTS.exchange, "--config", path or self.config, "--check-config"],
                              env=self.environment, capture_output=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(os.path.exists(f"{self.directory}/test"), False)
        return done.stdout.decode(), done.stderr.decode()

    def options(self, name):
        return json.loads(next(text for text in map(pathlib.Path.read_text, pathlib.Path(self.directory, "test").glob("sub.*.json"))
                               if json.loads(text)["name"] == name))

    def test_check(self):
        self.write('shards = 1\n[[subscription]]\nname = "s"\npatterns = "#"\n')
        self.assertEqual(self.check(0), (f"{self.config}: ok\n", ""))
        self.write('shards = 9\nbuss = "x"\n[[subscription]]\nname = "s"\npatterns = "#"\nttl = "5x"\n')
        out, error = self.check(2)
        self.assertEqual(out, "")
        self.assertRegex(error, r"^(ackring-exchange: \S+:\d+: key '\w+': .+: .+\n){3}$")
        for line, key in ((1, "shards"), (2, "buss"), (6, "ttl")):
            self.assertIn(f"{self.config}:{line}: key '{key}': ", error)
        process = self.start(ARGUMENTS.exchange, "--config", self.config)
        _, error = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, error.count(b"\n")), (2, 1), error)
        self.assertIn(b"2 more: see --check-config", error)
        self.write('access = "/no/such/file"')
        self.assertIn("/no/such/file: can't open it", self.check(2)[1])
        os.chmod(self.config, 0o666)
        self.assertIn("let others change it", self.check(3)[1])
        self.assertIn("can't open it", self.check(3, "/no/such/file")[1])

    def test_the_example(self):
        example = pathlib.Path(__file__).parents[2] / "docs" / "ackring-exchange.toml"
        self.write(example.read_text(encoding="utf-8"))
        self.assertEqual(self.check(0)[0], f"{self.config}: ok\n")

    def test_what_goes_before_what(self):
        self.write(f'bus = "file"\ndir = "{self.directory}/file"\nsocket_mode = "0660"\n[log]\nfile = "{self.directory}/other"')
        process = self.exchange("--config", self.config)  # the environment has a bus, a directory and a log
        self.tool("ping")
        self.assertEqual(os.stat(f"{self.directory}/test/exchange.sock").st_mode & 0o777, 0o660)
        self.assertTrue(os.path.exists(self.log))
        self.assertFalse(os.path.exists(f"{self.directory}/other"))
        self.stop(process)
        del self.environment["ACKRING_BUS"], self.environment["ACKRING_DIR"]
        self.environment["ACKRING_CONFIG"] = self.config
        process = self.start(ARGUMENTS.exchange, "--bus", "flag")
        self.assertEqual(process.stdout.readline().decode(), f"ready bus=flag dir={self.directory}/file pid={process.pid}\n")

    def test_declared_subscriptions(self):
        declared = '[[subscription]]\nname = "s"\npatterns = ["a.#"]\nttl = "1h"\nmax_events = 7\n'
        self.write(declared + '[[subscription]]\nname = "later"\npatterns = "v.#"\nfrom = "last"\n'
                              '[[subscription]]\nname = "@last"\npatterns = "v.#"\n')
        process = self.exchange("--config", self.config)
        self.assertEqual([row["name"] for row in self.stat()["subscriptions"]], ["@last", "later", "s"])
        self.assertEqual(self.options("s")["options"]["max_events"], 7)
        self.assertEqual(len(self.events("subscription.created")), 3)
        self.stop(process)

        # One that differs stays, and is named with what differs; what the file does not say is not compared.
        self.tool_in_between("--max-events", "8", "--jitter", "0.5")
        process = self.exchange("--config", self.config)
        differs = self.wait_for("config.differs")
        self.assertEqual((differs["subscription"], differs["keys"]), ("s", "max_events"))
        self.assertEqual(differs["where"], f"{self.config}:1")
        self.assertEqual(self.options("s")["options"]["max_events"], 8)
        self.stop(process)

        self.write(declared + "update = true\n")
        process = self.exchange("--config", self.config)
        self.assertEqual(self.wait_for("subscription.updated", 2)["keys"], "max_events")
        options = self.options("s")["options"]
        self.assertEqual((options["max_events"], options["jitter"]), (7, 0.5))
        self.write(declared + "update = true\ngroup = true\n")
        refused = self.reload(process, "config.not_updated")
        self.assertIn("its group can't change", refused["text"])

    def tool_in_between(self, *changes):
        process = self.exchange()
        self.tool("subscription", "update", "s", *changes)
        self.stop(process)

    def test_one_that_cannot_be_created(self):
        self.write('[[subscription]]\nname = "s"\npatterns = "#"\nfrom = "last"\n')
        process = self.start(ARGUMENTS.exchange, "--config", self.config)
        out, error = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (3, b""), error)
        self.assertRegex(error.decode(), r"^ackring-exchange: \S+:1: from last: .+\n$")

    def test_reload(self):
        self.write('[log]\nlevel = "warn"\n')
        process = self.exchange("--config", self.config)
        self.assertEqual(self.events(), [])
        self.write('wait = "park"\n[log]\nlevel = "info"\n[[subscription]]\nname = "s"\npatterns = "#"\n')
        self.reload(process)
        self.assertEqual(self.stat()["subscriptions"][0]["name"], "s")
        self.assertIn("key 'wait': it has another value now: that takes a restart", self.wait_for("config.restart")["text"])

        self.write('[log]\nlevel = "debug"\n[[subscription]]\nname = "t"\npatterns = "#"\nttl = "x"\n')
        self.assertIn("all stays as it was", self.reload(process, "config.refused")["text"])
        self.assertIn(f"{self.config}:6: key 'ttl': ", self.wait_for("config.error")["text"])
        self.assertEqual(len(self.stat()["subscriptions"]), 1)
        pathlib.Path(self.config).unlink()
        self.assertIn("can't open it", self.reload(process, "config.refused")["text"])
        self.tool("subscription", "pause", "none", status=1)
        self.assertEqual(self.events("request.refused"), [])  # the level is not debug
        self.stop(process)

    def test_log_is_opened_anew(self):
        process = self.exchange()
        self.wait_for("exchange.ready")
        os.rename(self.log, self.log + ".1")
        process.send_signal(signal.SIGHUP)
        self.wait_until(lambda: os.path.exists(self.log), "the log is opened anew")
        self.tool("subscription", "create", "s", "#")
        self.wait_for("subscription.created")
        self.stop(process)

    def test_without_files_a_hangup_ends_it(self):
        del self.environment["ACKRING_LOG_FILE"]
        process = self.exchange()
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(PATIENCE), -signal.SIGHUP)

    def test_access_is_read_again(self):
        self.write('[access]\ndefault = "allow"\n')
        process = self.exchange("--config", self.config, "--socket-mode", "0666")
        os.chmod(self.directory, 0o755)
        if os.getuid() != 0:
            self.skipTest("only root can ask as somebody else")

        def as_nobody():
            return subprocess.run([ARGUMENTS.shmtool, "subscription", "create", "s", "#"], env=self.environment,
                                  capture_output=True, user=65534, group=65534, timeout=PATIENCE, check=False).stderr

        if b"can't" in as_nobody():
            self.skipTest("nobody can't run the programs")
        self.tool("subscription", "remove", "s")
        self.write('[access]\ndefault = "deny"\n')
        self.reload(process)
        self.assertIn(b"the access rules of the bus do not let uid 65534", as_nobody())
        self.assertEqual(self.wait_for("request.refused")["code"], "permission")

    def test_service_manager_is_told(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"{self.directory}/notify")
            manager.settimeout(PATIENCE)
            self.environment["NOTIFY_SOCKET"] = f"{self.directory}/notify"
            self.write("")
            process = self.exchange("--config", self.config)
            self.assertIn(b"READY=1", manager.recv(1000))
            process.send_signal(signal.SIGHUP)
            self.assertRegex(manager.recv(1000), rb"^RELOADING=1\nMONOTONIC_USEC=\d+\n$")
            self.assertEqual(manager.recv(1000), b"READY=1\n")
            process.terminate()
            self.assertIn(b"STOPPING=1", manager.recv(1000))
