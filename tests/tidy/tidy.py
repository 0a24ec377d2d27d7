#!/usr/bin/env python3
"""Checks the rules of rules.py on the whole tree: tidy.py ROOT RULE… (no rule: all). One line per finding; exit 1 if any."""
import pathlib
import sys

import rules

SKIPPED_FOLDERS = {".git", ".cache", "__pycache__"}
SKIPPED_FILES = {"LICENSE"}


def read_tree(root):
    """All text files of the project. Build directories hold a meson-private folder or are named build…."""
    files = []
    pending = [root]
    while pending:
        folder = pending.pop()
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                continue
            if path.is_dir():
                build = path.name.startswith("build") or (path / "meson-private").exists()
                if path.name not in SKIPPED_FOLDERS and not build:
                    pending.append(path)
            elif path.name not in SKIPPED_FILES:
                data = path.read_bytes()
                if b"\0" not in data:
                    name = path.relative_to(root).as_posix()
                    files.append(rules.File(name, data.decode("utf-8", errors="replace")))
    return sorted(files, key=lambda file: file.path)


def main(arguments):
    root = pathlib.Path(arguments[0])
    names = arguments[1:] or list(rules.RULES)
    files = read_tree(root)
    if not any(file.is_cpp for file in files):
        print(f"tidy: {root}: no C++ file found: is this the top of the project?", file=sys.stderr)
        return 3
    findings = 0
    for name in names:
        for path, line, what, advice in rules.RULES[name](files):
            findings += 1
            print(f"{path}:{line}: {name}: {what}: {advice}")
    print(f"{len(files)} files, {len(names)} rules, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
