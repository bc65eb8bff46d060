"""S-expressions, the syntax of VNN-LIB properties and of counterexamples: `(assert (<= X_0 0.5)) ; a comment`."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from robustgen.exchange import limits
from robustgen.exchange.errors import BadText
from robustgen.exchange.reading import Unreadable, read_bytes

_TOKEN = re.compile(r"\s+|;[^\n]*|([()]|[^\s();]+)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Atom(NamedTuple):
    """A word. `offset` is where it begins, in characters."""

    text: str
    offset: int


class Form(NamedTuple):
    """What stands between parentheses."""

    items: "tuple[Expression, ...]"
    offset: int


Expression = Atom | Form


class Source(NamedTuple):
    """A text, and the exception that is raised for what is wrong in it."""

    path: str
    text: str
    raises: type[BadText]

    def error(self, offset: int, reason: str) -> BadText:
        """The exception for what stands at `offset`."""
        line = self.text.count("\n", 0, offset) + 1
        return self.raises(self.path, line, offset - self.text.rfind("\n", 0, offset), reason)


def read_source(path: str | os.PathLike, raises: type[BadText]) -> Source:
    """The text of a file, gzipped or not. Raises `raises` where it has none, or too much."""
    try:
        content = read_bytes(path, limits.TEXT_BYTES)
    except Unreadable as error:
        raise raises(path, 0, 0, str(error)) from error
    try:
        return Source(os.fspath(path), content.decode(), raises)
    except UnicodeDecodeError as error:
        good = Source(os.fspath(path), content[: error.start].decode(), raises)
        raise good.error(len(good.text), "is no UTF-8 text from here on") from error


def forms(source: Source) -> Iterator[Form]:
    """The outermost forms of a text, one at a time. Raises `source.raises` for what is none.

    No recursion: depth is limited by `limits.DEPTH`, not by the interpreter's stack.
    """
    open_forms: list[tuple[list[Expression], int]] = []
    count = 0
    for match in _TOKEN.finditer(source.text):
        word, offset = match.group(1), match.start()
        if word is None:
            continue
        count += 1
        if count > limits.TOKENS:
            raise source.error(open_forms[0][1], f"has more than {limits.TOKENS} words, the most that is read")
        if word == "(":
            open_forms.append(([], offset))
            if len(open_forms) > limits.DEPTH:
                raise source.error(offset, f"is nested deeper than {limits.DEPTH} parentheses, the most that is read")
        elif not open_forms:
            raise source.error(offset, f"{shown(word)} is not inside parentheses")
        elif word == ")":
            items, start = open_forms.pop()
            form = Form(tuple(items), start)
            if open_forms:
                open_forms[-1][0].append(form)
            else:
                count = 0
                yield form
        else:
            open_forms[-1][0].append(Atom(word, offset))
    if open_forms:
        raise source.error(open_forms[-1][1], "this parenthesis is never closed")


def number(text: str) -> float | None:
    """The number that a word is, None where it is none: decimal digits with or without sign, point and exponent."""
    return float(text) if _NUMBER.fullmatch(text) else None


def head(form: Form) -> str:
    """The first word of a form, "" where there is none."""
    return form.items[0].text if form.items and isinstance(form.items[0], Atom) else ""


def shown(text: str, most: int = 40) -> str:
    """A word in quotes, cut where it is long."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")
