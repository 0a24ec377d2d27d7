#!/usr/bin/env python3
"""What is refused: one clear line, the right exit status, and whoever is there already does not notice."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import unittest

sys.dont_write_bytecode = True
import support  # noqa: E402  (nothing is to be written beside the sources)

NOBODY = 65534
LAYOUT_AT = 8  # offset of the layout version in every shared file: docs/shm-format.md, SegmentHeader
as_root = unittest.skipUnless(os.geteuid() == 0, "needs root")


class Refusals(support.Processes):
    def bus(self, name="test"):
        return pathlib.Path(self.directory) / name

    def refused_exchange(self, *arguments, says, status=3, **options):
        self.run_program(support.ARGUMENTS.exchange, *arguments, status=status, says=says, **options)

    def ask(self, *messages):
        """Sends raw messages to the exchange as a client would; all that comes back until it hangs up or answers each."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(support.PATIENCE)
            client.connect(str(self.bus() / "exchange.sock"))
            replies = []
            for message in messages:
                with contextlib.suppress(BrokenPipeError):
                    client.send(message)
                reply = client.recv(1 << 16)
                if not reply:
                    break
                replies.append(json.loads(reply))
                if replies[-1].get("code") == "protocol":
                    self.assertEqual(client.recv(1), b"", "the connection stays open")
                    break
            return replies

    def test_second_exchange(self):
        process = self.exchange()
        self.refused_exchange(says=["test", str(process.pid)])
        self.tool("ping")

    def test_missing_directory(self):
        missing = f"{self.directory}/not/there/at/all"
        self.refused_exchange("--dir", missing, says=["/not/there"])
        for command in (["stat"], ["pub", "t"], ["sub", "t"], ["ls"], ["ping", "--timeout", "10ms"]):
            self.tool(*command, "--dir", missing, status=3, says=["not/there"] if command == ["ls"] else [])
        self.exchange("--dir", f"{self.directory}/made")  # one that is missing is made
        self.assertEqual(os.stat(f"{self.directory}/made/test").st_mode & 0o777, 0o700)

    def test_not_a_directory(self):
        self.bus("file").write_text("x", encoding="ascii")
        self.refused_exchange("--bus", "file", says=[str(self.bus("file"))])
        self.bus("link").symlink_to("/tmp")
        self.refused_exchange("--bus", "link", says=[str(self.bus("link"))])

    def test_directory_others_may_write(self):
        self.bus("open").mkdir()
        self.bus("open").chmod(0o777)
        self.refused_exchange("--bus", "open", says=[str(self.bus("open")), "777"])

    @as_root
    def test_directory_of_another_user(self):
        self.exchange()
        shutil.chown(self.directory, NOBODY)
        os.chmod(self.directory, 0o711)
        # Programs where that user can run them.
        for name in ("exchange", "shmtool"):
            reach = subprocess.run([getattr(support.ARGUMENTS, name), "--version"], user=NOBODY, group=NOBODY, extra_groups=[],
                                   capture_output=True, check=False)
            if reach.returncode != 0:
                self.skipTest("another user can't run the programs of this build")
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.refused_exchange(says=[str(self.bus())], **other)
        for command in (["stat"], ["pub", "t"], ["sub", "t"]):
            self.tool(*command, status=3, says=[str(self.bus())], **other)
        self.tool("ping")

    @as_root
    def test_full_tmpfs(self):
        mount = pathlib.Path(self.directory) / "small"

        def make(size):
            mount.mkdir(exist_ok=True)
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(mount)],
                                  capture_output=True, check=False)
            if done.returncode != 0:
                self.skipTest("mount is not allowed here: " + done.stderr.decode().strip())

        def drop():
            subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)

        self.addCleanup(drop)
        make("64k")
        self.refused_exchange("--dir", str(mount), says=[str(mount), "No space left"])
        drop()
        make("2m")
        self.environment["ACKRING_DIR"] = str(mount)
        self.exchange()
        self.tool("pub", "t", status=3, says=["No space left"])  # a ring of 4 MiB
        self.tool("sub", "t", "--timeout", "1s", status=3, says=["No space left"])
        self.tool("subscription", "create", "s", "t", "--ring", "64KiB", "--max-in-flight", "64")
        self.assertEqual(self.tool("pub", "t", "x", "--ring", "64KiB"), b"published 1 events\n")
        self.assertEqual(self.tool("sub", "--name", "s", "--count", "1", "--format", "raw"), b"x")
        self.assertEqual([row["acked"] for row in self.stat()["subscriptions"]], [1])

    def test_files_of_another_layout(self):
        process = self.exchange()
        self.tool("subscription", "create", "s", "#")
        self.tool("pub", "t", "kept")
        process.terminate()
        self.assertEqual(process.wait(support.PATIENCE), 0)
        path = self.bus() / "exchange"
        with open(path, "r+b") as file:
            file.seek(LAYOUT_AT)
            own, = struct.unpack("<I", file.read(4))
            file.seek(LAYOUT_AT)
            file.write(struct.pack("<I", 98))
        before = {entry.name: entry.stat().st_size for entry in self.bus().iterdir()}
        self.refused_exchange(says=[f"version {98}", f"required {own}"])
        self.tool("stat", status=3, says=[f"version {98}", f"required {own}"])
        self.assertEqual({entry.name: entry.stat().st_size for entry in self.bus().iterdir()}, before)
        with open(path, "r+b") as file:
            file.seek(LAYOUT_AT)
            file.write(struct.pack("<I", own))
        self.exchange()
        self.assertEqual(self.tool("sub", "--name", "s", "--count", "1", "--format", "raw"), b"kept")

    def test_client_of_another_layout(self):
        self.exchange()
        hello = {"id": 7, "op": "hello", "layout": 99, "version": "9.9", "name": "later", "membarrier": True}
        reply, = self.ask(json.dumps(hello).encode())
        self.assertEqual((reply["id"], reply["ok"], reply["code"]), (7, False, "layout_mismatch"))
        self.assertRegex(reply["why"], r"version \d+.* 99\b")
        self.tool("ping")

    def test_exchange_of_another_layout(self):
        """A client of ours at the socket of an exchange that is newer."""
        self.bus().mkdir(mode=0o700)
        refusal = {"ok": False, "code": "layout_mismatch", "object": "bus 'test'", "errno": 0,
                   "why": "the exchange has layout version 99, this client has 1", "advice": "use the same release"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self.bus() / "exchange.sock"))
            listener.listen()

            def answer():
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = listener.accept()
                        with client:
                            request = json.loads(client.recv(1 << 16))
                            client.send(json.dumps({**refusal, "id": request["id"]}).encode())
                            client.recv(1)

            threading.Thread(target=answer, daemon=True).start()
            for command in (["pub", "t"], ["sub", "t"], ["ping"]):
                self.tool(*command, status=3, says=["99", "layout version"])

    def test_malformed_requests(self):
        """That connection is closed with a reason, and nothing else happens (F27)."""
        self.exchange()
        self.tool("subscription", "create", "s", "#")
        hello = json.dumps({"id": 1, "op": "hello", "layout": 1, "version": "0", "name": "x", "membarrier": True}).encode()
        for bad in (b"{", b"[]", b"null", b"\xff\xfe", b"{" * 2000, b'{"op":5}', b'{"id":1}', b'{"op":"nonsense","id":1}',
                    b'{"op":"publisher","id":1,"name":"x","ring_bytes":-1}',
                    b'{"op":"subscribe","id":1,"name":"s","ephemeral":0,"patterns":7,"options":[]}',
                    b'{"op":"settle","id":1,"subscription":1}'):
            for before in ((), (hello,)):
                replies = self.ask(*before, bad)
                self.assertEqual(replies[-1]["ok"], False, (bad, replies))
                self.assertTrue(replies[-1]["why"], bad)
        self.tool("pub", "t", "x")
        self.assertEqual(self.stat()["subscriptions"][0]["queued"], 1)

    def test_event_too_large(self):
        self.exchange()
        self.tool("subscription", "create", "s", "#")
        big = pathlib.Path(self.directory) / "big"
        big.write_bytes(b"x" * 16_384)
        done = subprocess.run([support.ARGUMENTS.shmtool, "pub", "t", "--lines", str(big), "--ring", "64KiB"],
                              env=self.environment, capture_output=True, timeout=support.PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count(b"\n")), (2, b"published 0 events\n", 1))
        most = int(re.search(rb"may be (\d+)", done.stderr).group(1))
        self.assertTrue(16_000 < most < 16_384, most)
        big.write_bytes(b"x" * (most + 1))
        done = subprocess.run([support.ARGUMENTS.shmtool, "pub", "t", "--lines", str(big), "--ring", "64KiB"],
                              env=self.environment, capture_output=True, timeout=support.PATIENCE, check=False)
        self.assertEqual(done.returncode, 2)
        big.write_bytes(b"x" * most)
        self.assertEqual(self.tool("pub", "t", "--lines", str(big), "--ring", "64KiB"), b"published 1 events\n")
        self.assertEqual(self.stat()["subscriptions"][0]["matched"], 1)


if __name__ == "__main__":
    sys.exit(support.main())
