"""shmtool top in a terminal (tmux): a group of programs_test.py. What is checked is what its screen shows."""
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time
import unittest

from programs_support import ARGUMENTS, PATIENCE, Programs


@unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
class Top(Programs):
    def setUp(self):
        super().setUp()
        self.environment["TMUX_TMPDIR"] = self.directory
        self.environment["LC_ALL"] = "C.UTF-8"
        self.environment.pop("TMUX", None)
        self.environment.pop("NO_COLOR", None)
        self.servers = 0
        self.process = self.exchange()

    def tmux(self, *arguments, check=True):
        done = subprocess.run(["tmux", "-u", "-L", f"top{self.servers}", "-f", "/dev/null", *arguments], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
        self.assertTrue(done.returncode == 0 or not check, (arguments, done.stderr))
        return done.stdout.decode()

    def top(self, *arguments, columns=80, rows=24, prefix=""):
        """Starts it in a window of its own; behind its end, the window shows its status."""
        program = shlex.join(["env", *prefix.split(), ARGUMENTS.shmtool, "top", *arguments])
        command = f"(exec sh -c 'echo $$ >{self.directory}/pid; exec {program}' 2>&1); echo \"status=$?\"; exec cat"
        self.servers += 1  # one that is about to end would take the new window with it
        self.addCleanup(self.tmux, "kill-server", check=False)
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), command)

    def screen(self, *options):
        return self.tmux("capture-pane", "-p", *options)

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def wait_for(self, pattern, gone=False):
        """The screen, as soon as it shows (or shows no more) this."""
        seen = []

        def look():
            seen[:] = [self.screen()]
            return bool(re.search(pattern, seen[0], re.MULTILINE)) != gone

        deadline = time.monotonic() + PATIENCE
        while not look():
            self.assertLess(time.monotonic(), deadline, f"not in time: {pattern}\n{seen[0]}")
            time.sleep(0.02)
        return seen[0]

    def rows(self, text):
        """The names in the first column, in their order."""
        lines = text.splitlines()
        titles = next(i for i, line in enumerate(lines) if line.startswith(("SUBSCRIPTION", "PUBLISHER")))
        return [line.split()[0] for line in lines[titles + 1:-1] if line.strip()]

    def pid(self):
        """Of the top that runs in the window."""
        return int(pathlib.Path(self.directory, "pid").read_text(encoding="ascii"))

    def test_rates_sort_filter_drill(self):
        self.tool("subscription", "create", "billing", "a.#", "--max-deliveries", "7")
        self.tool("subscription", "create", "audit", "b.*")
        self.tool("pub", "b.x", "data", "--count", "30")
        self.top("--interval", "100ms")
        screen = self.wait_for(r"^audit ")
        self.assertEqual(len(screen.splitlines()), 24)
        self.assertRegex(screen, rf"^bus test  exchange running  pid {self.process.pid}  up ")
        self.assertEqual(self.rows(screen), ["audit", "billing"])
        self.start(ARGUMENTS.shmtool, "pub", "a.x", "data", "--name", "gateway", "--rate", "300", "--count", "100000")
        self.start(ARGUMENTS.shmtool, "sub", "--name", "billing", "--format", "topic", stdout=subprocess.DEVNULL)
        self.wait_for(r"^publish [1-9]\S*/s  deliver [1-9]\S*/s  ack [1-9]\S*/s")
        self.wait_for(r"^billing +[1-9]\S* +[1-9]")
        self.press("r")
        self.assertEqual(self.rows(self.wait_for(r"by lag reversed")), ["billing", "audit"])
        self.press("r", ">")
        self.wait_for(r"by oldest,")
        self.press("<", "<")
        self.wait_for(r"by queued,")
        self.press("/", "B.")  # of a pattern, in whatever case
        self.assertEqual(self.rows(self.wait_for(r"^filter: B\.")), ["audit"])
        self.press("Enter")
        self.wait_for(r"^1 of 2, by queued, filter 'B\.'")
        self.press("Escape")
        self.wait_for(r"^2 of 2")
        self.press("/", "bill", "Enter", "Enter")
        self.wait_for(r"^subscription billing  at-least-once, 1 member")
        self.assertRegex(self.wait_for(r"max_deliveries 7"), r"patterns +a\.#")
        self.press("End")
        self.assertRegex(self.wait_for(r"< +\S+ +\S+ +\S+% .*[▏▎▍▌▋▊▉█]"), r"Esc back  q quit")
        self.press("Escape", "Escape", "Tab")
        self.assertIn("gateway", self.rows(self.wait_for(r"^PUBLISHER .*COMMITTED")))
        self.wait_for(r"^gateway +[1-9]")
        self.press("?")
        self.wait_for(r"^Keys")
        self.press("q")
        self.assertNotIn("Keys", self.wait_for(r"^status=0$"))

    def test_rows_that_need_a_look(self):
        """Dead letters, an order for breakers, a subscription that goes; and stat tells the same."""
        self.tool("subscription", "create", "s", "#", "--max-deliveries", "1")
        self.tool("pub", "a", "--count", "3")
        self.tool("sub", "--name", "s", "--verdict", "reject", "--count", "2", "--format", "topic")
        self.top("--interval", "100ms", columns=120)
        self.assertNotIn("BREAKER", self.wait_for(r"DLQ 2$"))
        self.tool("subscription", "breaker", "s", "open")
        self.wait_for(r"^SUBSCRIPTION .* BREAKER")
        self.wait_for(r"^s .* ordered")
        self.assertRegex(self.tool("stat").decode(), r"(?m)BREAKER$(.*\n)*s .* none \(ordered open\)$")
        one = self.tool("stat", "s").decode()
        self.assertRegex(one, r"(?m)^breaker +none, ordered open$")
        self.assertRegex(one, r"(?m)^publish_to_take +about \d+ events?: mean ")
        self.assertNotIn("{", one)
        self.press("Enter")
        self.wait_for(r"^breaker +none, ordered open")
        self.tool("subscription", "remove", "s", "--pending", "drop")
        self.wait_for(r"Subscription s has gone")

    def test_sizes(self):
        for n in range(60):
            self.tool("subscription", "create", f"s{n:02}", "#")
        self.tool("pub", "a")
        self.top("--sort", "name", "--interval", "100ms")
        self.assertEqual(self.rows(self.wait_for(r"^s17 "))[0], "s00")
        self.press("End")
        self.assertEqual(self.rows(self.wait_for(r"^s59 "))[-1], "s59")
        self.press("NPage", "Up", "PPage")
        self.tmux("resize-window", "-x", "40", "-y", "5")
        screen = self.wait_for(r"\A.*\nSUBSCRIPTION +ACK/s QUEUED OLDEST +DLQ\n(s\d\d .*\n){2}.*\n\Z")
        self.assertEqual([len(line) <= 40 for line in screen.splitlines()], [True] * 5)
        self.tmux("resize-window", "-x", "39", "-y", "3")
        self.wait_for(r"\A39x3 is too small: 40x5 at least\n")
        self.tmux("resize-window", "-x", "1", "-y", "1")
        self.tmux("resize-window", "-x", "130", "-y", "70")
        self.assertEqual(len(self.rows(self.wait_for(r"MEMBERS .*"))), 60)
        os.kill(self.pid(), signal.SIGTERM)
        self.assertNotIn("SUBSCRIPTION", self.wait_for(r"^status=0$"))
        self.assertEqual(self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").strip(), "0 1")

    def test_colours_and_bars(self):
        coloured = re.compile(r"\x1b\[[\d;]*\b(3[1-7]|38)[;m]")
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a")
        self.top()
        self.wait_for(r"^s .*██████")
        self.assertRegex(self.screen("-e"), coloured)
        self.press("C-c")
        self.wait_for(r"^status=0$")
        self.tmux("kill-server")
        self.top(prefix="NO_COLOR=1 LC_ALL=C")
        self.wait_for(r"^s .*######")
        self.assertNotRegex(self.screen("-e"), coloured)
        self.tmux("kill-server")
        self.top(prefix="TERM=vt100")
        self.wait_for(r"^s .*██████")
        self.assertNotRegex(self.screen("-e"), coloured)

    def test_pause_and_interval(self):
        self.tool("subscription", "create", "s", "#")
        self.top("--interval", "100ms")
        self.wait_for(r"queued 0 ")
        self.press("Space")
        paused = self.wait_for(r"^PAUSED ")
        self.tool("pub", "a", "--count", "3")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            self.assertEqual(self.screen(), paused)
        self.press("p")
        self.assertNotIn("PAUSED", self.wait_for(r"queued 3 "))
        self.press("+", "+")
        self.wait_for(r"every 500ms")
        self.press("-")
        self.wait_for(r"every 200ms")

    def test_an_exchange_that_goes_and_comes(self):
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "a", "--count", "3")
        self.top("--interval", "100ms")
        self.wait_for(r"exchange running .*\n(.*\n)*s .* 3 ")
        self.process.kill()
        self.process.wait()
        self.wait_for(r"exchange stopped.*\nNo exchange serves this bus(.*\n)*s .* 3 ")
        self.press("Enter")
        self.wait_for(r"^options .*ack_timeout 30")  # of the files
        self.press("Escape")
        self.process = self.exchange()
        self.assertNotIn("No exchange", self.wait_for(rf"exchange running  pid {self.process.pid} "))
        self.process.terminate()
        self.process.wait()
        self.wait_for(r"exchange stopped")
        shutil.rmtree(f"{self.directory}/test")
        self.wait_for(r"exchange out of sight.*\nThis is what was seen last: .*(.*\n)*s .* 3 ")
        self.process = self.exchange()
        self.wait_for(r"exchange running (.*\n)*\(none\)")

    def test_where_it_can_not_run(self):
        self.tool("top", status=2)
        self.assertIn("stat --watch", self.error)
        for wrong in (["--sort", "nothing"], ["--interval", "1ms"], ["--interval", "x"], ["SUB"]):
            self.tool("top", *wrong, status=2)
        for prefix, arguments, status, words in (("TERM=dumb", [], 2, "stat --watch"), ("TERM=nonesuch", [], 2, "stat --watch"),
                                                 ("", ["--bus", "nobody"], 3, "no such bus")):
            self.top(*arguments, prefix=prefix, columns=300)
            self.assertRegex(self.wait_for(r"^status="), rf"^shmtool: .*{words}.*\nstatus={status}\n")
            self.tmux("kill-server")
