"""Puts switches into C++ sources, each of which breaks one thing: weakens a memory order, drops a store, swaps two.

A source is read as nested lists of statements, without a compiler: enough for the style of this project. What a mutant is
called does not depend on line numbers: file, kind and statement, with a number behind it where that is not unique.
"""
import re

# How a switch looks at run time: included before every mutated source.
SWITCHES = """#pragma once
#include <cstdio>
#include <cstdlib>
namespace ackring_mutants {
struct Hits {
  bool hit[4096] = {};
  const char* path = std::getenv("ACKRING_MUTANT_HITS");
  ~Hits() {
    std::FILE* file = path != nullptr ? std::fopen(path, "w") : nullptr;
    if (file == nullptr) return;
    for (int i = 0; i < 4096; ++i) {
      if (hit[i]) std::fprintf(file, "%d\\n", i);
    }
    std::fclose(file);
  }
};
inline Hits hits;
inline bool on(int number) {
  static const char* const text = std::getenv("ACKRING_MUTANT");
  static const int active = text != nullptr ? std::atoi(text) : -1;
  hits.hit[number] = true;
  return number == active;
}
}  // namespace ackring_mutants
"""

ORDER = re.compile(r"\bstd::memory_order_(acquire|release|acq_rel|seq_cst)\b")
WEAKER = {"acquire": ["relaxed"], "release": ["relaxed"], "acq_rel": ["acquire", "release"], "seq_cst": ["acq_rel"]}
# What changes shared memory, or orders a change of it.
STORE = re.compile(
    r"(?:\.|->)(?:store|raise|fetch_add|compare_exchange|commit)\s*\(|\b(?:shared_copy|write_header|write_block)\s*\("
    r"|\bMemory::(?:store|fence|compiler_fence)\s*\("
)
CALLS = re.compile(r"(?<!->)\beveryone_fences\(\)(?!\s*noexcept)")  # a condition that a mutant takes for false
DECLARATION = re.compile(
    r"(?:\[\[[^\]]*\]\]\s*)*(?:const|constexpr|static|auto|using|return|struct|class|template|inline|explicit|friend|void|bool"
    r"|std::\w+(?:<[^;]*?>)?\s+\w+|[\w:]+&?\s+\w+\s*[={(])\b"
)
TYPE = re.compile(r"(?:template\s*<[^{;]*>\s*)?(?:class|struct|enum|union)\b")
CONTROL = re.compile(r"(?:if|for)\s*(?:constexpr\s*)?\(")
LEAVES = re.compile(r"\b(?:return|break|continue|else|goto)\b")


class Mutants:
    """All mutants by number."""

    def __init__(self):
        self.all = {}
        self._seen = {}

    def add(self, file, kind, statement):
        text = f"{file}: {kind}: {' '.join(statement.split())}"
        count = self._seen[text] = self._seen.get(text, 0) + 1
        number = len(self.all) + 1
        self.all[number] = text if count == 1 else f"{text} #{count}"
        return number


def blank(text):
    """`text` with comments, literals and preprocessor lines as spaces: same length, same lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\b\d[\w\']*|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:[^\n\\]|\\.|\\\n)*'

    def spaces(match):
        return match.group() if match.group()[0].isdigit() else re.sub(r"[^\n]", " ", match.group())

    return re.sub(pattern, spaces, text, flags=re.DOTALL | re.MULTILINE)


class Statement:
    """[begin, end) of the text; `body`: (begin, end) of the inside of its braces."""

    def __init__(self, begin, end, body=None):
        self.begin, self.end, self.body = begin, end, body


def closing(code, at):
    """Index of the bracket that closes the one at `at`."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    opening, depth = code[at], 0
    for index in range(at, len(code)):
        depth += (code[index] == opening) - (code[index] == pairs[opening])
        if depth == 0:
            return index
    raise ValueError("a bracket is not closed")


def statements(code, begin, end):
    """The statements of a block, and what looks like one in a class or a namespace."""
    result, start, at = [], None, begin
    while at < end:
        char = code[at]
        if start is None and not char.isspace():
            start = at
        if char in "([":
            at = closing(code, at)
        elif char == "{":
            last = closing(code, at)
            following = code[last + 1 : end].lstrip()[:1]
            if following not in (";", ",", ")", ".", "{") or TYPE.match(code[start:at]):
                result.append(Statement(start, last + 1, (at + 1, last)))
                start = None
            at = last
        elif char == ";":
            if start != at:  # a lone one ends a class
                result.append(Statement(start, at + 1))
            start = None
        at += 1
    return result


class Source:
    def __init__(self, name, text, mutants):
        self.name, self.text, self.code, self.mutants = name, text, blank(text), mutants

    def render(self, begin, end):
        """The text of a block with all its switches."""
        out, at = [], begin
        group = []
        for statement in statements(self.code, begin, end):
            if not self.is_store(statement):
                out.append(self.render_group(group))
                group = []
            if not group:
                out.append(self.weaken(at, statement.begin))
            if self.is_store(statement):
                group.append((statement, at))
            else:
                out.append(self.render_one(statement))
            at = statement.end
        out.append(self.render_group(group))
        out.append(self.weaken(at, end))
        return "".join(out)

    def render_group(self, group):
        """Stores that follow one another: as they are, or each two of them swapped."""
        texts = [self.render_one(statement) for statement, _ in group]
        if len(group) < 2:
            return "".join(texts)
        out = ""
        for index in range(len(texts) - 1):
            first, second = (self.words(group[index + i][0]) for i in (0, 1))
            number = self.mutants.add(self.name, "swapped", f"{first} and {second}")
            order = [*texts[:index], texts[index + 1], texts[index], *texts[index + 2 :]]
            out += f"if (::ackring_mutants::on({number})) {{" + " ".join(order) + "} else "
        return out + "{" + " ".join(texts) + "}"

    def render_one(self, statement):
        if statement.body is not None:
            first, last = statement.body
            return self.weaken(statement.begin, first) + self.render(first, last) + self.weaken(last, statement.end)
        text = self.weaken(statement.begin, statement.end)
        if not self.is_store(statement):
            return text
        number = self.mutants.add(self.name, "dropped", self.words(statement))
        return f"if (!::ackring_mutants::on({number})) {{ {text} }}"

    def is_store(self, statement):
        code = self.code[statement.begin : statement.end]
        if not STORE.search(code) or LEAVES.search(code):
            return False
        if statement.body is not None:
            return CONTROL.match(code) is not None
        return CONTROL.match(code) is not None or DECLARATION.match(code) is None

    def words(self, statement):
        return self.code[statement.begin : statement.end].strip().rstrip(";")

    def around(self, at):
        """The statement that position `at` is in, for the description."""
        begin = max(self.code.rfind(char, 0, at) for char in ";{}") + 1
        end = min(index for char in ";{}" if (index := self.code.find(char, at)) != -1)
        return self.code[begin:end]

    def weaken(self, begin, end):
        """A piece of text with a switch at each order and each call."""
        out, at = "", begin
        for match in sorted([*ORDER.finditer(self.code, begin, end), *CALLS.finditer(self.code, begin, end)],
                            key=lambda found: found.start()):
            out += self.text[at : match.start()]
            text = match.group()
            for weaker in WEAKER[match.group(1)] if match.re is ORDER else ["false"]:
                kind = f"{match.group(1)} to {weaker}" if match.re is ORDER else "taken for false"
                number = self.mutants.add(self.name, kind, self.around(match.start()))
                value = f"std::memory_order_{weaker}" if match.re is ORDER else weaker
                text = f"(::ackring_mutants::on({number}) ? {value} : {text})"
            out += text
            at = match.end()
        return out + self.text[at:end]


def mutate(name, text, mutants):
    """The source with its switches; adds what they do to `mutants`."""
    source = Source(name, text, mutants)
    return source.render(0, len(text))
