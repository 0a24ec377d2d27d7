#!/usr/bin/env python3
"""Holds docs/shm-format.md against the code: shm_format.py [--update] DOCUMENT format_dump.

The program format_dump prints a table per shared struct. The document must have each exactly so, once, between its
markers, and none that the code does not have. --update writes the tables into existing markers.
"""
import pathlib
import re
import subprocess
import sys

_BLOCK = re.compile(r"^<!-- layout:(\w+) -->\n(.*?)^<!-- /layout:\1 -->\n", re.MULTILINE | re.DOTALL)


def problems(document, dump):
    """One line for each difference between the document and the tables of the code."""
    found = []
    tables = dict(_BLOCK.findall(dump))
    if not tables:
        found.append("format_dump printed no table")
    described = _BLOCK.findall(document)
    names = [name for name, _ in described]
    for name in sorted(set(re.findall(r"<!-- layout:(\w+) -->", document)) - set(names)):
        found.append(f"{name}: the table has no end marker")
    for name, table in described:
        if name not in tables:
            found.append(f"{name}: the code has no such shared struct")
        elif names.count(name) > 1:
            found.append(f"{name}: described more than once")
        elif table != tables[name]:
            found.append(f"{name}: the table differs from the code")
    found.extend(f"{name}: not described" for name in tables if name not in names)
    return found


def updated(document, dump):
    tables = dict(_BLOCK.findall(dump))

    def replace(match):
        name = match.group(1)
        return f"<!-- layout:{name} -->\n{tables.get(name, match.group(2))}<!-- /layout:{name} -->\n"

    return _BLOCK.sub(replace, document)


def self_test():
    """The canary: a difference of one figure, a missing and a surplus struct must all be seen."""
    dump = "<!-- layout:A -->\n| 0 | 8 | `n` |\n<!-- /layout:A -->\n<!-- layout:B -->\n| 0 | 4 | `m` |\n<!-- /layout:B -->\n"
    cases = {
        "": ["A: not described", "B: not described"],
        dump: [],
        dump.replace("| 8 |", "| 4 |"): ["A: the table differs from the code"],
        dump.replace(":B", ":C"): ["C: the code has no such shared struct", "B: not described"],
        dump.replace("<!-- /layout:B -->\n", ""): ["B: the table has no end marker", "B: not described"],
    }
    for document, expected in cases.items():
        assert problems(document, dump) == expected, (document, problems(document, dump))
    assert updated(dump.replace("| 8 |", "| 4 |"), dump) == dump
    assert problems("", "") == ["format_dump printed no table"]


def main(arguments):
    if arguments == ["--self-test"]:
        self_test()
        return 0
    update = arguments[0] == "--update"
    path, program = [pathlib.Path(argument) for argument in arguments[update:]]
    dump = subprocess.run([program.resolve()], check=True, capture_output=True, text=True).stdout
    document = path.read_text(encoding="utf-8")
    if update:
        document = updated(document, dump)
        path.write_text(document, encoding="utf-8")
    found = problems(document, dump)
    for problem in found:
        print(f"{path}: {problem}: add markers <!-- layout:Name --> as needed and run scripts/update-shm-format")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
