"""What a verifier says, in the competition's form: `sat`, `unsat`, ... and for `sat` a counterexample below it.

    sat
    ((X_0 0.25)
     (X_1 -1.5)
     (Y_0 0.125))

The form is that of VNN-COMP's rules. Numbers are written so that reading them gives the same float64 again.
"""

import enum
import os
import pathlib
from typing import NamedTuple

import numpy as np

from robustgen.exchange.affine import variable_name
from robustgen.exchange.errors import BadText
from robustgen.exchange.sexpr import Atom, Expression, Form, Source, forms, number, read_source, shown
from robustgen.files import replace_file


class Verdict(enum.Enum):
    """What is known of a property: violated somewhere, nowhere, or neither."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    ERROR = "error"


class Counterexample(NamedTuple):
    """An input and its outputs, both flat in row-major order."""

    x: np.ndarray
    y: np.ndarray


class Result(NamedTuple):
    """A verdict; with a counterexample where, and only where, it is SAT."""

    verdict: Verdict
    counterexample: Counterexample | None = None


def result_text(result: Result) -> str:
    """The contents of a result file. Raises ValueError for a counterexample without SAT, or SAT without one."""
    if (result.verdict is Verdict.SAT) != (result.counterexample is not None):
        raise ValueError(f"counterexample: goes with sat and only with it; the verdict is {result.verdict.value}")
    below = [counterexample_text(result.counterexample)] if result.counterexample else []
    return "\n".join([result.verdict.value, *below, ""])


def counterexample_text(example: Counterexample) -> str:
    """`((X_0 0.25) ... (Y_0 1.0))`, one value a line."""
    numbered = [(kind, i, float(v)) for kind, vs in zip("XY", example, strict=True) for i, v in enumerate(np.ravel(vs))]
    return "(" + "\n ".join(f"({kind}_{i} {value!r})" for kind, i, value in numbered) + ")"


def write_result(path: str | os.PathLike, result: Result) -> pathlib.Path:
    """Writes a result file, whole or not at all."""
    return replace_file(pathlib.Path(path), result_text(result).encode())


def load_result(path: str | os.PathLike) -> Result:
    """The result in a file, gzipped or not. Raises `BadText`, with line and column of what is wrong."""
    return parse_result(read_source(path, BadText))


def parse_result(source: Source) -> Result:
    """The result in a text. What follows a verdict other than sat is not read, as by the competition's own tools."""
    word = source.text.split(maxsplit=1)[:1]
    start = len(source.text) - len(source.text.lstrip())
    try:
        verdict = Verdict(*word)
    except (ValueError, TypeError) as error:
        begins, accepted = shown(*word) if word else "nothing", ", ".join(each.value for each in Verdict)
        raise source.error(start, f"begins with {begins}, not one of {accepted}") from error
    if verdict is not Verdict.SAT:
        return Result(verdict)
    after = start + len(verdict.value)
    rest = source.text[:start] + " " * len(verdict.value) + source.text[after:]  # keeps lines and columns
    return Result(verdict, parse_counterexample(source._replace(text=rest)))


def load_counterexample(path: str | os.PathLike) -> Counterexample:
    """The counterexample in a file without a verdict, gzipped or not. Raises `BadText`."""
    return parse_counterexample(read_source(path, BadText))


def parse_counterexample(source: Source) -> Counterexample:
    """The counterexample in a text: x and y in float64, whatever the order of the lines."""
    found = list(forms(source))
    if len(found) != 1:
        raise source.error(found[1].offset if found else 0, f"one counterexample was expected, here are {len(found)}")
    values: dict[str, dict[int, float]] = {"X": {}, "Y": {}}
    for pair in found[0].items:
        kind, index, value = _pair(source, pair)
        if index in values[kind]:
            raise source.error(pair.offset, f"{kind}_{index} has two values")
        values[kind][index] = value
    for kind, column in values.items():
        if not column or max(column) != len(column) - 1:
            raise source.error(found[0].offset, f"{kind}_0, {kind}_1, ... are not all there: {len(column)} {kind}_i")
    return Counterexample(*(np.array([column[i] for i in range(len(column))]) for column in values.values()))


def _pair(source: Source, pair: Expression) -> tuple[str, int, float]:
    words = [item.text for item in pair.items if isinstance(item, Atom)] if isinstance(pair, Form) else []
    variable = variable_name(words[0]) if words else None
    value = number(words[1]) if len(words) == 2 == len(pair.items) else None
    if variable is None or value is None or not np.isfinite(value):
        raise source.error(pair.offset, "a counterexample consists of (X_i number) and (Y_i number)")
    return *variable, value
