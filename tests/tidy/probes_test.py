"""The probes of lib/shm/probe.hpp: each is used, a tracer finds each in an object file, and without USDT there is nothing.

  probes_test.py ROOT COMPILER…
"""
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE = """#include "lib/shm/probe.hpp"
void use(unsigned long a, unsigned long b, const char* text) {
  ACKRING_PROBE_PUBLISH(a, b);
  ACKRING_PROBE_ROUTE(1, a, true, b);
  ACKRING_PROBE_DELIVER(a, b, 64);
  ACKRING_PROBE_TAKE(a, b, 1);
  ACKRING_PROBE_ACK(a, b, 1);
  ACKRING_PROBE_RETRY(a, b, 1, a);
  ACKRING_PROBE_DEAD_LETTER(a, b, 1, text, 5);
}
"""
EMPTY = "void use(unsigned long, unsigned long, const char*) {}\n"


def compiled(compiler, root, directory, name, text, *options):
    source = directory / (name + ".cpp")
    source.write_text(text)
    made = directory / (name + ".o")
    subprocess.run([*compiler, "-std=c++20", "-O2", f"-I{root}", *options, "-c", source, "-o", made], check=True)
    return made


def code(made):
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", made], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^ +[0-9a-f]+:\t(.*)$", text, re.MULTILINE)


def main():
    root = pathlib.Path(sys.argv[1])
    compiler = [word for word in sys.argv[2:] if "ccache" not in word]
    names = re.findall(r"#define (ACKRING_PROBE_\w+)\(", (root / "lib/shm/probe.hpp").read_text())
    assert len(names) == 7, names
    library = "".join(path.read_text() for path in sorted((root / "lib").rglob("*.[ch]pp")) if path.name != "probe.hpp")
    for name in names:
        assert name + "(" in library, f"{name} is used nowhere"
        assert name + "(" in SOURCE, f"{name} is not tested here"
    with tempfile.TemporaryDirectory() as where:
        directory = pathlib.Path(where)
        off = code(compiled(compiler, root, directory, "off", SOURCE))
        assert off == code(compiled(compiler, root, directory, "empty", EMPTY)), off
        if not any(pathlib.Path(path).exists() for path in ("/usr/include/sys/sdt.h", "/usr/include/x86_64-linux-gnu/sys/sdt.h")):
            print("sys/sdt.h is not there: install systemtap-sdt-dev")
            sys.exit(77)
        on = compiled(compiler, root, directory, "on", SOURCE, "-DACKRING_USDT")
        notes = subprocess.run(["readelf", "-n", on], check=True, capture_output=True, text=True).stdout
        found = re.findall(r"Provider: ackring\s+Name: (\w+)", notes)
        assert sorted(found) == sorted(name.removeprefix("ACKRING_PROBE_").lower() for name in names), found
        assert code(on).count("nop") >= len(names), code(on)


if __name__ == "__main__":
    main()
