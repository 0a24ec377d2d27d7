"""The rules of this project that a text search can check. Each takes the files and yields findings.

A file is a File; a finding is (path, line number, what is wrong, what to do). Rules never look at the disk, so that the
self-test can feed them snippets.
"""
import re

import cpp_text

CPP = (".cpp", ".hpp", ".h")
LAYERS = ("shm", "ring", "log", "control", "exchange", "client", "runtime")  # lowest first
PUBLIC_TO_ALL = {f"ackring/{name}.hpp" for name in ("error", "outcome", "limits", "options")}
# What only programs link: a library must not choose a logger or a command line for its user.
PROGRAMS_ONLY = re.compile(r"^(spdlog|CLI|toml\+\+)/")
MAX_LINES = 400


class File:
    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.top = path.split("/", 1)[0]
        self.is_cpp = path.endswith(CPP)
        self.lines = cpp_text.split(text) if self.is_cpp else []

    @property
    def layer(self):
        """Name of the folder under lib/ that the file is in, or None."""
        parts = self.path.split("/")
        return parts[1] if parts[0] == "lib" and len(parts) > 2 else None


def _code_lines(file):
    for number, line in enumerate(file.lines, 1):
        if line.code.strip():
            yield number, line.code


def _includes(file):
    for number, code in _code_lines(file):
        match = re.match(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', code)
        if match:
            yield number, match.group(1), match.group(2)


def layering(files):
    """Includes only go down: tools, bench, tests > include/ackring > client > exchange > control > log > ring > shm."""
    for file in files:
        if file.top not in ("lib", "include", "tools", "examples", "bench") or not file.is_cpp:
            continue
        for number, quoted, angled in _includes(file):
            problem = _include_problem(file, quoted, angled)
            if problem:
                yield file.path, number, f"includes {quoted or angled}", problem


def _include_problem(file, quoted, angled):
    if angled is not None:
        if angled.startswith(("ackring/", "lib/")):
            # Users of the installed headers write <ackring/…>; so do the examples that show them how.
            return None if file.top == "examples" and angled.startswith("ackring/") else "write it in quotes"
        if file.top in ("lib", "include") and PROGRAMS_ONLY.match(angled):
            return "only programs may use this library"
        return None
    target = quoted.split("/")
    if file.top == "include":
        return None if target[0] == "ackring" else "a public header includes public headers only"
    if file.top == "examples":
        return None if target[0] == "ackring" else "an example shows the public interface only"
    if file.top in ("tools", "bench"):
        return None if target[0] != "tests" else "tests are above everything"
    if quoted in PUBLIC_TO_ALL:
        return None
    if target[0] == "ackring":
        return None if file.layer in ("client", "runtime") else "only lib/client sees the whole public interface"
    if target[0] != "lib" or len(target) < 3:
        return 'write the path from the root ("lib/…"); lib/ includes lib/ and include/ackring only'
    if target[1] not in LAYERS or file.layer not in LAYERS:
        return f"not a layer: name it in {__name__}.py (LAYERS)"
    if LAYERS.index(target[1]) > LAYERS.index(file.layer):
        return f"lib/{file.layer} is below lib/{target[1]}: move what both need down"
    return None


def public_headers(files):
    """Nothing under include/ shows an atomic, an offset or a Boost type."""
    for file in files:
        if file.top != "include":
            continue
        for number, text in enumerate(file.text.split("\n"), 1):
            match = re.search(r"std::atomic|<atomic>|\boffset(s|of)?\b|boost", text, re.IGNORECASE)
            if match:
                yield file.path, number, f"mentions {match.group()}", "keep it in lib/"


def atomics_below(files):
    """Only lib/shm and lib/ring use std::atomic; the layers above go through their words."""
    for file in files:
        if file.top not in ("lib", "include") or file.layer in ("shm", "ring"):
            continue
        for number, code in _code_lines(file):
            match = re.search(r"\bstd::atomic\w*|<atomic>", code)
            if match:
                yield file.path, number, f"uses {match.group()}", "use shm::Word, a mutex or a condition variable"


_ATOMIC_CALL = re.compile(
    r"(?:\.|->)\s*(load|store|exchange|raise|fetch_\w+|compare_exchange\w*|test_and_set)\s*(\()"
)
_ATOMIC_NAME = re.compile(r"\bstd::atomic(?:_\w+)?\s*(?:<[^;<>]*(?:<[^<>]*>)?[^;<>]*>)?\s*(\w+)\s*[;{=(]")


def named_orders(files):
    """Every atomic operation names its memory order."""
    for file in files:
        if not file.is_cpp:
            continue
        for number, code in _code_lines(file):
            for match in _ATOMIC_CALL.finditer(code):
                inside = cpp_text.arguments(file.lines, number - 1, match.start(2))
                if not re.search(r"memory_order|\b(\w+_)?order\b", inside):
                    yield file.path, number, f"{match.group(1)}() without a memory order", "name the order"
        yield from _operators(file)


def _operators(file):
    names = {match.group(1) for _, code in _code_lines(file) for match in _ATOMIC_NAME.finditer(code)}
    for number, code in _code_lines(file):
        if re.search(r"\bstd::atomic", code):
            continue  # a declaration
        for name in names:
            pattern = (
                rf"\b{name}\s*(\+\+|--|[-+|&^]?=(?!=))|(\+\+|--)\s*{name}\b|\b(if|while)\s*\(\s*!?\s*{name}\s*\)"
            )
            if re.search(pattern, code):
                yield file.path, number, f"operator on the atomic {name}", "call load, store or fetch_… with an order"


_ORDER = re.compile(r"\bmemory_order(?:_|::)(acquire|release|acq_rel|seq_cst|consume|relaxed)\b")
_LABEL = re.compile(r"\b(acquire|release|acq_rel|seq_cst)\(([\w.\-]+)\)[:,]?\s*([^()]*)")
_NEEDED = {"acquire": {"acquire"}, "release": {"release"}, "acq_rel": {"acquire", "release"}, "seq_cst": {"seq_cst"}}


def _labelled(file):
    """Tests may play one side of a pair alone; everywhere else both sides are there."""
    return file.is_cpp and file.top != "tests"


def _labels(comment):
    """(kinds, name, text) of each label in a comment; acq_rel(label) is both sides."""
    for match in _LABEL.finditer(comment):
        yield _NEEDED[match.group(1)], match.group(2), match.group(3)


def labelled_orders(files):
    """Every acquire, release and seq_cst carries a label with its reason, on the line or right above it."""
    for file in files:
        if not _labelled(file):
            continue
        for number, code in _code_lines(file):
            needed = {kind for order in _ORDER.findall(code) for kind in _NEEDED.get(order, {order})} - {"relaxed"}
            if not needed:
                continue
            if "consume" in needed:
                yield file.path, number, "memory_order_consume", "use acquire: no compiler implements consume"
                continue
            found = {}
            for kinds, name, text in _labels(cpp_text.comments_of(file.lines, number - 1)):
                for kind in kinds:
                    found[kind] = found.get(kind, "") + text
            for kind in sorted(needed):
                if kind not in found:
                    yield file.path, number, f"{kind} without a label", f"add the comment {kind}(label): reason"
                elif len(found[kind].split()) < 2:
                    yield file.path, number, f"{kind} label without a reason", "say what it publishes or sees"


def paired_labels(files):
    """A label has at least one release and one acquire."""
    where = {}
    for file in files:
        if not _labelled(file):
            continue
        for number, line in enumerate(file.lines, 1):
            if not _ORDER.search(line.code):
                continue
            for kinds, name, _ in _labels(cpp_text.comments_of(file.lines, number - 1)):
                for kind in kinds:
                    where.setdefault(name, {}).setdefault(kind, (file.path, number))
    for name, kinds in sorted(where.items()):
        for kind, partner in (("release", "acquire"), ("acquire", "release")):
            if kind in kinds and partner not in kinds:
                path, number = kinds[kind]
                yield path, number, f"{kind}({name}) has no {partner}({name})", "label the partner, or drop the order"


def relaxed_reasons(files):
    """A relaxed access says who the only writer is, or why a stale value is safe."""
    for file in files:
        if not _labelled(file):
            continue
        for number, code in _code_lines(file):
            if "relaxed" not in _ORDER.findall(code):
                continue
            comment = cpp_text.comments_of_block(file.lines, number - 1)
            if not re.search(r"\b(relaxed|stale|only writer|sole writer)\b", comment):
                yield file.path, number, "relaxed without a reason", "add the comment relaxed: reason"


def file_length(files):
    """No source file is longer than MAX_LINES lines."""
    for file in files:
        count = len(file.text.splitlines())
        if count > MAX_LINES and (file.is_cpp or file.path.endswith((".c", ".py", ".build"))):
            yield file.path, count, f"{count} lines", f"split it: at most {MAX_LINES}"


# Spelt so that this file does not match itself.
_MACHINE_PATH = re.compile(r"(?<![\w.])/(w[o]rk|f[a]rm|r[o]ot|h[o]me)/[\w.]")


def machine_paths(files):
    """No path of somebody's machine."""
    for file in files:
        for number, text in enumerate(file.text.split("\n"), 1):
            match = _MACHINE_PATH.search(text)
            if match:
                yield file.path, number, f"names {match.group()}…", "use a path relative to the project"


_STRUCT = re.compile(r"^\s*struct\s+(?:alignas\([^)]*\)\s*)?(\w+)\s*{")


def shared_structs(files):
    """Every struct of the shared formats is asserted in format_fields.hpp and has its place in docs/shm-format.md."""
    texts = {file.path: file for file in files}
    fields = texts.get("lib/shm/format_fields.hpp")
    document = texts.get("docs/shm-format.md")
    for path in ("lib/shm/format.hpp", "lib/shm/measure_format.hpp", "lib/shm/record_format.hpp"):
        for number, code in _code_lines(texts[path]) if path in texts else ():
            match = _STRUCT.match(code)
            if not match:
                continue
            name = match.group(1)
            if not fields or not re.search(rf"\bS\({name},", fields.text):
                yield path, number, f"{name} is not asserted", "list it in lib/shm/format_fields.hpp"
            if not document or f"<!-- layout:{name} -->" not in document.text:
                yield path, number, f"{name} is not described", "describe it in docs/shm-format.md"


RULES = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        layering,
        public_headers,
        atomics_below,
        named_orders,
        labelled_orders,
        paired_labels,
        relaxed_reasons,
        file_length,
        machine_paths,
        shared_structs,
    )
}
