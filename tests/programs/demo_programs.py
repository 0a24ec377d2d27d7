"""shmtool demo: a group of programs_test.py."""
import json
import pathlib
import time

from programs_support import Programs


class Demo(Programs):
    def test_file(self):
        lines = [json.dumps({"topic": f"shop.{'order' if i % 3 else 'cart'}.{'created' if i % 2 else 'closed'}",
                             "data": {"id": i}}) for i in range(300)]
        path = pathlib.Path(self.directory) / "events"
        path.write_text("\n".join(lines), encoding="utf-8")
        start = time.monotonic()
        out = self.tool("demo", "--ndjson", str(path)).decode()
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(out.count("all in order, once, byte for byte"), 3)
        self.assertIn("published 300 events", out)
        for parent in ("/dev/shm", "/tmp"):
            self.assertEqual(list(pathlib.Path(parent).glob("ackring-demo-*")), [])
        path.write_text("nonsense\n", encoding="utf-8")
        self.tool("demo", "--ndjson", str(path), status=2)
