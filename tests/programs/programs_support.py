"""What the groups of programs_test.py share: a bus directory, and the two programs in it."""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ARGUMENTS = argparse.Namespace()  # filled by main() of programs_test.py
PATIENCE = 20


class Programs(unittest.TestCase):
    """A directory for buses, and the two programs in it."""

    def setUp(self):
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        self.directory = tempfile.mkdtemp(prefix="ackring-test-", dir=parent)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.environment = {**os.environ, "ACKRING_DIR": self.directory, "ACKRING_BUS": "test"}

    def start(self, program, *arguments, **options):
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen([program, *arguments], env=self.environment, **options)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()

        self.addCleanup(end)
        return process

    def exchange(self, *arguments, **options):
        process = self.start(ARGUMENTS.exchange, *arguments, **options)
        line = process.stdout.readline().decode()
        self.assertRegex(line, r"^ready bus=\S+ dir=\S+ pid=%d\n$" % process.pid)
        return process

    def tool(self, *arguments, status=0, stdin=b""):
        """Runs shmtool to its end; stdout as bytes. A failure must be exactly one line on stderr."""
        done = subprocess.run([ARGUMENTS.shmtool, *arguments], env=self.environment, input=stdin,
                              capture_output=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, status, (arguments, done.stdout[-500:], done.stderr))
        if status:
            self.assertRegex(done.stderr.decode(), r"^shmtool: [^\n]+\n$", arguments)
        else:
            self.assertEqual(done.stderr, b"", arguments)
        self.error = done.stderr.decode()
        return done.stdout

    def subscriber(self, *arguments):
        """A `shmtool sub --name …` that has joined its subscription."""
        name = arguments[arguments.index("--name") + 1]
        process = self.start(ARGUMENTS.shmtool, "sub", *arguments)
        self.wait_until(lambda: self.books(name, {"members": 0})["members"] == 1, f"{name} has joined")
        return process

    def stat(self):
        return json.loads(self.tool("stat", "--json"))

    def books(self, name, default=None):
        for subscription in self.stat()["subscriptions"]:
            if subscription["name"] == name:
                places = sum(subscription[key] for key in ("acked", "queued", "in_flight", "retry_waiting", "dlq_size",
                                                           "dlq_removed", "expired", "purged"))
                self.assertEqual(subscription["matched"], places + sum(subscription["dropped"].values()), subscription)
                return subscription
        self.assertIsNotNone(default, f"no subscription {name}")
        return default

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not in time: {what}")
            time.sleep(0.01)

    def finish(self, process, status=0):
        out, error = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, status, error)
        return out
