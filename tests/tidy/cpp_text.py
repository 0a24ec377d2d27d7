"""Splits C++ text into code and comments, line by line, without a compiler: enough for the rules of this folder."""
import re


class Line:
    """One line: `code` with comments removed and the insides of literals blanked, and the text of its comments."""

    def __init__(self):
        self.code = ""
        self.comment = ""

    @property
    def blank(self):
        return not self.code.strip() and not self.comment.strip()

    @property
    def comment_only(self):
        return not self.code.strip() and bool(self.comment.strip())


_TOKEN = re.compile(
    r"""(?P<line_comment>//[^\n]*)
      | (?P<block_comment>/\*.*?(?:\*/|\Z))
      | (?P<raw>R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<number>\b[0-9][0-9a-zA-Z'.]*)
      | (?P<char>'(?:\\.|[^'\\\n])+')
      | (?P<newline>\n)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def split(text):
    """Returns the lines of `text`."""
    lines = [Line()]
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup if match.lastgroup != "mark" else "raw"
        token = match.group()
        if kind == "newline":
            lines.append(Line())
        elif kind in ("line_comment", "block_comment"):
            for number, part in enumerate(token.split("\n")):
                if number:
                    lines.append(Line())
                lines[-1].comment += part.strip().lstrip("/*<! ").removesuffix("*/") + " "
        elif kind in ("raw", "string", "char"):
            # An include names a file: its text is needed. Nothing else looks into literals.
            keep = kind == "string" and re.match(r"\s*#\s*include\s*$", lines[-1].code)
            parts = token.split("\n")
            lines[-1].code += token if keep else parts[0][0] + " " * (len(parts[0]) - 2) + token[-1]
            lines.extend(Line() for _ in parts[1:])
        else:
            lines[-1].code += token
    return lines


def statement(lines, index):
    """(first, last) line of the statement that line `index` is a part of."""
    first = index
    while first > 0 and not _ends_before(lines[first - 1].code):
        first -= 1
    last = index
    while last + 1 < len(lines) and lines[last].code.strip() and not _ends(lines[last].code):
        last += 1
    return first, last


def _ends(code):
    return code.rstrip().endswith((";", "{", "}", ":"))


def _ends_before(code):
    return not code.strip() or _ends(code) or code.lstrip().startswith("#")


def comments_of(lines, index):
    """Text of the comments that belong to the statement at `index`: on its lines, and right above them."""
    first, last = statement(lines, index)
    above = first
    while above > 0 and lines[above - 1].comment_only:
        above -= 1
    return " ".join(line.comment for line in lines[above : last + 1] if line.comment)


def comments_of_block(lines, index):
    """As comments_of, and of the lines above that no empty line parts from it."""
    _, last = statement(lines, index)
    above = index
    while above > 0 and not lines[above - 1].blank:
        above -= 1
    return " ".join(line.comment for line in lines[above : last + 1] if line.comment)


def arguments(lines, index, column):
    """Text between the parenthesis that opens at `column` of line `index` and the one that closes it."""
    depth = 0
    out = []
    while index < len(lines):
        for char in lines[index].code[column:]:
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return "".join(out[1:])
            out.append(char)
        out.append(" ")
        index, column = index + 1, 0
    return "".join(out[1:])
