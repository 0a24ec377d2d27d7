"""Access rules, as other users meet them: the exchange and its operator are root, clients are two users of no name.
Needs root, to become them; skipped otherwise."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import support

TRADER = 54_321
STRANGER = 54_322

RULES = f"""
default = "deny"

[[rule]]
uid = {TRADER}
publish = ["orders.#"]
subscribe = ["fills.*", "prices.#"]
join = "audit"
operate = ["trader-*"]
"""

# A client by hand: becomes a user, says hello (as the client that argv names, if any), opens a publisher, and closes its
# connection. It lives on, with the lock that X gave it, until its stdin ends. It begins as root: others may have no
# rights to run this Python.
RAW_CLIENT = """
import json, os, socket, sys
path, user, *resumes = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.connect(path)
def ask(body):
    link.send(json.dumps(body).encode())
    data, controls, _, _ = link.recvmsg(1 << 16, 1 << 10)
    return json.loads(data), controls
hello = {"id": 1, "op": "hello", "layout": 1, "version": "0", "name": "raw", "membarrier": True}
if resumes:
    hello["client"] = int(resumes[0])
reply, descriptors = ask(hello)
if reply["ok"] and not resumes:
    publisher, _ = ask({"id": 2, "op": "publisher", "name": "raw", "ring_bytes": 4096})
    assert publisher["ok"], publisher
print(json.dumps(reply), flush=True)
link.close()
sys.stdin.read()
"""


@unittest.skipIf(os.geteuid() != 0, "needs root, to run clients as other users")
class Access(support.Processes):
    def setUp(self):
        super().setUp()
        # Where the others can read it: what was built may lie in somebody's home.
        self.programs = tempfile.mkdtemp(prefix="ackring-programs-")
        self.addCleanup(shutil.rmtree, self.programs, ignore_errors=True)
        os.chmod(self.programs, 0o755)
        self.theirs = shutil.copy(support.ARGUMENTS.shmtool, self.programs)
        linked = subprocess.run(["ldd", support.ARGUMENTS.shmtool], capture_output=True, check=True).stdout.decode()
        shutil.copy(re.search(r"libackring\S* => (\S+)", linked).group(1), self.programs)
        self.environment["LD_LIBRARY_PATH"] = self.programs
        self.rules = pathlib.Path(self.programs) / "access.toml"
        self.rules.write_text(RULES, encoding="utf-8")

    def serve(self):
        return self.exchange("--socket-mode", "0666", "--access", str(self.rules))

    def as_user(self, uid, *arguments, **options):
        return self.run_program(self.theirs, *arguments, user=uid, group=uid, extra_groups=[], **options)

    def denied(self, uid, *arguments, says=()):
        self.as_user(uid, *arguments, status=3, says=["access rules", str(uid), *says])

    def test_publish(self):
        self.serve()
        self.tool("subscription", "create", "all", "#")
        self.assertEqual(self.as_user(TRADER, "pub", "orders.eu", "x"), b"published 1 events\n")
        for topic in ("secret", "order"):
            done = subprocess.run([self.theirs, "pub", topic, "x"], env=self.environment, capture_output=True,
                                  timeout=support.PATIENCE, check=False, user=TRADER, group=TRADER, extra_groups=[])
            self.assertEqual((done.returncode, done.stdout), (3, b"published 0 events\n"), done.stderr)
            self.assertRegex(done.stderr.decode(),
                             rf"^shmtool: publish '{topic}': permission: [^\n]*{TRADER}[^\n]*\n$")
        self.denied(STRANGER, "pub", "orders.eu", "x", says=["publish anything"])
        self.assertEqual(self.tool("pub", "secret", "root may"), b"published 1 events\n")
        self.assertEqual(self.stat()["subscriptions"][0]["matched"], 2)

    def test_subscribe_and_operate(self):
        self.serve()
        for name in ("audit", "trader-1", "others"):
            self.tool("subscription", "create", name, "fills.*")
        self.tool("subscription", "create", "trader-wide", "#")
        # Taps: patterns alone count.
        self.assertEqual(self.as_user(TRADER, "sub", "fills.*", "prices.eu.#", "--timeout", "50ms"), b"")
        self.denied(TRADER, "sub", "fills.#", "--timeout", "50ms", says=["fills.#", "fills.*, prices.#"])
        self.denied(TRADER, "tail", "orders.#", says=["orders.#"])
        # Named ones: their names count, too, and what they match rather than what is asked for.
        for name in ("audit", "trader-1", "trader-new"):
            self.assertEqual(self.as_user(TRADER, "sub", "fills.*", "--name", name, "--timeout", "50ms"), b"")
        self.denied(TRADER, "sub", "fills.*", "--name", "others", "--timeout", "50ms", says=["others", "audit, trader-*"])
        self.denied(TRADER, "sub", "--name", "trader-wide", "--timeout", "50ms", says=["pattern '#'"])
        # Who joins may not operate.
        for operation in (["pause", "audit"], ["purge", "audit"], ["remove", "audit"], ["update", "audit", "--ttl", "1s"],
                          ["create", "audit2", "fills.*"]):
            self.denied(TRADER, "subscription", *operation, says=["audit", "trader-*"])
        self.tool("pub", "fills.eu", "x")
        for look in (["peek", "audit"], ["explain", "audit", "1"], ["dlq", "show", "audit"],
                     ["dlq", "requeue", "audit", "--all"], ["dlq", "purge", "audit"]):
            self.denied(TRADER, *look, says=["audit"])
        for mine in (["subscription", "pause", "trader-1"], ["peek", "trader-1"], ["explain", "trader-1", "1"],
                     ["subscription", "update", "trader-1", "--ttl", "1s"], ["subscription", "resume", "trader-1"],
                     ["dlq", "show", "trader-1"], ["subscription", "purge", "trader-1"],
                     ["subscription", "create", "trader-2", "prices.#", "--dead-letter-topic", "orders.dead"]):
            self.as_user(TRADER, *mine)
        # Nobody gets by a subscription of his what he may not subscribe or publish to.
        self.denied(TRADER, "subscription", "create", "trader-3", "orders.#", says=["orders.#"])
        self.denied(TRADER, "subscription", "create", "trader-3", "fills.*", "--dead-letter-topic", "secret", says=["secret"])
        self.denied(TRADER, "subscription", "create", "@last", "prices.#", says=["@last"])
        # Counters are everybody's.
        self.denied(STRANGER, "sub", "#", "--timeout", "50ms", says=["'#'"])
        self.as_user(STRANGER, "ping")
        self.assertIn("audit", self.as_user(STRANGER, "stat").decode())
        self.stat()

    def raw(self, uid, *resumes):
        """A RAW_CLIENT of this user, and what it was answered."""
        path = str(pathlib.Path(self.directory) / "test" / "exchange.sock")
        process = self.start(sys.executable, "-c", RAW_CLIENT, path, str(uid), *map(str, resumes),
                             stdin=subprocess.PIPE)
        return process, json.loads(process.stdout.readline())

    def test_nobody_takes_the_place_of_another_users_client(self):
        process = self.serve()
        _, hello = self.raw(TRADER)
        client = hello["client"]
        for restarted in (False, True):
            if restarted:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = self.serve()
            _, refused = self.raw(STRANGER, client)
            self.assertEqual((refused["ok"], refused.get("code")), (False, "permission"), refused)
            self.assertIn(str(TRADER), refused["why"])
            _, resumed = self.raw(TRADER, client)
            self.assertTrue(resumed["ok"], resumed)
            self.assertEqual(resumed["client"], client)
        self.stat()

    def test_clients_learn_of_narrower_rules_by_a_restart(self):
        process = self.serve()
        self.tool("subscription", "create", "all", "#")
        publishing = self.start(self.theirs, "pub", "orders.eu", "--lines", "-", stdin=subprocess.PIPE, user=TRADER,
                                group=TRADER, extra_groups=[])
        publishing.stdin.write(b"1\n")
        publishing.stdin.flush()
        self.wait_until(lambda: self.stat()["subscriptions"][0]["matched"] == 1, "the first event is routed")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.rules.write_text(RULES.replace("orders.#", "fills.#"), encoding="utf-8")
        self.serve()
        # It goes on until it is told: what it publishes by then is counted, and goes nowhere.
        while publishing.poll() is None:
            try:
                publishing.stdin.write(b"2\n")
                publishing.stdin.flush()
            except BrokenPipeError:
                break
        self.assertEqual(publishing.wait(support.PATIENCE), 3)
        document = self.stat()
        self.assertEqual(document["subscriptions"][0]["matched"], 1)
        row = document["publishers"][0]
        self.assertEqual((row["routed"], row["denied"]), (1, row["committed"] - 1))
        self.assertEqual(self.as_user(TRADER, "pub", "fills.eu", "3"), b"published 1 events\n")
        self.assertEqual(self.stat()["subscriptions"][0]["matched"], 2)

    def test_a_client_that_sleeps_through_narrower_rules_learns_of_them(self):
        process = self.serve()
        publishing = self.start(self.theirs, "pub", "orders.eu", "--lines", "-", stdin=subprocess.PIPE, user=TRADER,
                                group=TRADER, extra_groups=[])
        publishing.stdin.write(b"1\n")
        publishing.stdin.flush()
        self.wait_until(lambda: self.stat()["publishers"][:1] and self.stat()["publishers"][0]["unroutable"] == 1,
                        "the first event is routed")
        publishing.send_signal(signal.SIGSTOP)
        for rules in (RULES.replace("orders.#", "fills.#"), RULES):
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.rules.write_text(rules, encoding="utf-8")
            process = self.serve()
        publishing.send_signal(signal.SIGCONT)
        # Its ring's number for the topic leads nowhere any more, whatever the rules say by now: it has to make a new one.
        while publishing.poll() is None:
            try:
                publishing.stdin.write(b"2\n")
                publishing.stdin.flush()
            except BrokenPipeError:
                break
        self.assertEqual(publishing.wait(support.PATIENCE), 3)
        row = self.stat()["publishers"][0]
        self.assertEqual((row["unroutable"], row["denied"]), (1, row["committed"] - 1))
        self.assertEqual(self.as_user(TRADER, "pub", "orders.eu", "3"), b"published 1 events\n")

    def test_files_of_rules_that_are_none(self):
        def refused(status, *says):
            self.run_program(support.ARGUMENTS.exchange, "--access", str(self.rules), status=status, says=says)
            self.assertFalse((pathlib.Path(self.directory) / "test").exists())

        self.rules.write_text('[[rule]]\nuid = 5\npublish = "a..b"\n', encoding="utf-8")
        refused(2, f"{self.rules}:3: publish:", "a..b")
        self.rules.chmod(0o666)
        refused(3, str(self.rules), "0666")
        self.rules.unlink()
        refused(3, str(self.rules), "No such file")
        self.environment["ACKRING_ACCESS"] = str(self.rules)
        self.run_program(support.ARGUMENTS.exchange, status=3, says=[str(self.rules)])


if __name__ == "__main__":
    sys.exit(support.main())
