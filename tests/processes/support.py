"""What the tests that drive the programs share: a bus directory of their own, children that die with the test, books."""
import argparse
import contextlib
import ctypes
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

PATIENCE = 60
ARGUMENTS = argparse.Namespace()
PLACES = ("acked", "queued", "in_flight", "retry_waiting", "dlq_size", "dlq_removed", "expired", "purged")
PUBLISHER_PLACES = ("routed", "unroutable", "duplicates", "discarded", "denied", "in_ring")
_PRCTL = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes(unittest.TestCase):
    def setUp(self):
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        self.directory = tempfile.mkdtemp(prefix="ackring-processes-", dir=parent)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.environment = {**os.environ, "ACKRING_DIR": self.directory, "ACKRING_BUS": "test"}

    def start(self, *command, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _die_with_parent, **options}
        process = subprocess.Popen(command, env=self.environment, **options)

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
        self.assertTrue(line.startswith("ready "), (line, process.poll()))
        return process

    def tool(self, *arguments, status=0, **options):
        return self.run_program(ARGUMENTS.shmtool, *arguments, status=status, **options)

    def run_program(self, *command, status=0, says=(), **options):
        """To its end. A refusal is one line `PROGRAM: what: why…` that says each of `says`, and nothing on stdout."""
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=PATIENCE, check=False,
                              preexec_fn=_die_with_parent, **options)
        error = done.stderr.decode()
        self.assertEqual(done.returncode, status, (command, done.stdout[-300:], error))
        if status:
            self.assertRegex(error, rf"\A{pathlib.Path(command[0]).name}: [^\n]+: [^\n]+\n\Z")
        else:
            self.assertEqual(error, "")
        for word in says:
            self.assertIn(word, error)
        return done.stdout

    def stat(self):
        """The document of stat, its books checked."""
        document = json.loads(self.tool("stat", "--json"))
        for row in document["subscriptions"]:
            places = sum(row[place] for place in PLACES) + sum(row["dropped"].values())
            self.assertEqual(row["matched"], places, row)
            self.assertEqual(row["last"], row["committed"] + row["lag"], row)
        for row in document["publishers"]:
            places = sum(row[place] for place in PUBLISHER_PLACES)
            self.assertEqual(row["committed"], places, row)
        return document

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not in time: {what}")
            time.sleep(0.005)


def main():
    parser = argparse.ArgumentParser()
    for name in ("exchange", "shmtool", "source"):
        parser.add_argument(f"--{name}", required=True)
    _, rest = parser.parse_known_args(namespace=ARGUMENTS)
    return unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
