#!/usr/bin/env python3
"""Runs examples and compares what they print with what their sources say: run_examples.py BUILD_DIRECTORY NAME…

Each runs twice in the same bus directory, since users do that too. Exit status: 0 all as they say; 1 one is not, or a
source is not among the names, or has no line in README.md.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# Not built where the compiler has no coroutines.
OPTIONAL = {"coroutine_take", "asio_coroutine"}
SECONDS = 10


def expected(source):
    """The lines below `// Prints:` in the comment at the top."""
    match = re.search(r"^// Prints:\n((?://   .*\n)+)", source, re.MULTILINE)
    return re.sub(r"^//   ", "", match.group(1), flags=re.MULTILINE) if match else None


def run(program, directory):
    try:
        done = subprocess.run([program], env={**os.environ, "ACKRING_DIR": directory}, capture_output=True, text=True,
                              timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), f"(it had not ended after {SECONDS} s)\n", None
    return done.stdout, done.stderr, done.returncode


def problems_of(name, build, directory):
    source = (HERE / f"{name}.cpp").read_text(encoding="utf-8")
    wanted = expected(source)
    if wanted is None:
        return ["its comment does not say what it prints"]
    for count in ("first", "second"):
        result = run(build / name, directory)
        if result != (wanted, "", 0):
            return [f"its {count} run ended with {result[2]} and printed:\n{result[0]}{result[1]}not:\n{wanted}"]
    return []


def main(arguments):
    build, names = pathlib.Path(arguments[0]), arguments[1:]
    problems = []
    known = {path.stem for path in HERE.glob("*.cpp")}
    for name in sorted(known - set(names) - OPTIONAL):
        problems.append(f"{name}: not in meson.build")
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    for name in sorted(known):
        if f"[{name}]({name}.cpp)" not in readme:
            problems.append(f"{name}: no line in README.md")
    with tempfile.TemporaryDirectory(prefix="ackring-examples-") as directory:
        for name in names:
            started = time.monotonic()
            found = problems_of(name, build, directory)
            print(f"{name}: {'as it says' if not found else 'NOT as it says'}, {time.monotonic() - started:.2f} s")
            problems += [f"{name}: {problem}" for problem in found]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
