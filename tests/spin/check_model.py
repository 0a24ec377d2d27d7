#!/usr/bin/env python3
"""Checks one Promela model with spin: check_model.py MODEL.pml [FLAG…]. Each FLAG is a variant that must hold too.

Every `-D BROKEN=N` that the model's first comment names must fail, in each variant: a model in which nothing can go wrong
shows nothing. Prints the states that were visited. Exit status: 0 as it should be, 1 not, 3 spin or the compiler failed.
"""
import pathlib
import re
import subprocess
import sys
import tempfile


def run(command, folder):
    result = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        print(result.stdout)
        print(f"check_model: {command[0]}: ended with {result.returncode}: see above", file=sys.stderr)
        sys.exit(3)
    return result.stdout


def violations(model, flags, formulas):
    """(errors found, states visited) of all properties of the model, with those flags."""
    errors = states = 0
    with tempfile.TemporaryDirectory(prefix="ackring-spin-") as folder:
        run(["spin", *flags, "-a", str(model)], folder)
        run(["cc", "-O0", "-w", "-o", "pan", "pan.c"], folder)
        for formula in formulas:
            output = run(["./pan", "-a", "-f", "-m100000", "-N", formula], folder)
            found = re.search(r"errors: (\d+)", output)
            visited = re.search(r"(\d+) states, stored", output)
            if not found or not visited or "max search depth too small" in output:
                print(output)
                print(f"check_model: {model.name}: pan did not search all", file=sys.stderr)
                sys.exit(3)
            errors += int(found.group(1))
            states += int(visited.group(1))
    return errors, states


def main():
    model = pathlib.Path(sys.argv[1]).resolve()
    text = model.read_text(encoding="utf-8")
    formulas = re.findall(r"^ltl (\w+)", text, re.MULTILINE)
    broken = sorted(set(re.findall(r"-D BROKEN=(\d+)", text.split("*/", 1)[0])))
    wrong = 0
    if not formulas or not broken:
        print(f"check_model: {model.name}: has no ltl property, or no BROKEN variant", file=sys.stderr)
        return 1
    for variant in [[], *([flag] for flag in sys.argv[2:])]:
        for number in ["0", *broken]:
            flags = [*variant, f"-DBROKEN={number}"]
            errors, states = violations(model, flags, formulas)
            as_it_should_be = (errors == 0) == (number == "0")
            wrong += not as_it_should_be
            print(f"{model.name} {' '.join(flags)}: {states} states, {errors} errors{'' if as_it_should_be else ': WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
