"""VNN-LIB 1.0 properties: `declare-const` of X_i and Y_i, `assert` of linear constraints with `and` and `or`.

The standard: vnnlib.org. Without strict comparisons, which no closed set has; without version 2 (`declare-network`).
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from robustgen.exchange import limits
from robustgen.exchange.affine import Row, Variable, variable_name
from robustgen.exchange.errors import BadProperty
from robustgen.exchange.normal_form import Conjunction, Disjunction, conjoined, disjunction
from robustgen.exchange.property import Box, Clause, Property
from robustgen.exchange.sexpr import Atom, Form, Source, forms, head, read_source, shown

Bounds = dict[tuple[int, str], float]
"""The bounds of inputs: (3, "<=") -> the smallest upper bound of X_3, (3, ">=") -> its largest lower bound."""


class _Case(NamedTuple):
    """A conjunction, sorted: bounds of single inputs, and all else."""

    bounds: Bounds
    rows: tuple[Row, ...]


def load_vnnlib(path: str | os.PathLike) -> Property:
    """The property in a VNN-LIB file, gzipped or not. Raises `BadProperty`, with line and column of what is wrong."""
    return _property(read_source(path, BadProperty))


def parse_vnnlib(text: str, path: str = "<text>") -> Property:
    """The property in a text; `path` is what errors call it."""
    return _property(Source(path, text, BadProperty))


def _property(source: Source) -> Property:
    declared, asserted = _read(source)
    sizes = {kind: _count(source, kind, declared) for kind in ("X", "Y")}
    common = _case(rows for part in asserted if len(part) == 1 for rows in part)
    choices = [part for part in asserted if len(part) > 1]
    cases = [_case([rows]) for rows in conjoined(source, choices, 0)] if choices else [_Case({}, ())]
    cases = [each for each in cases if not _contradicts(each.rows)] if not _contradicts(common.rows) else []
    rows = (row for each in [common, *cases] for row in each.rows)
    watched = sorted({i for row in rows for kind, i in row.coefficients if kind == "X"})
    columns = {("Y", i): i for i in range(sizes["Y"])} | {("X", i): sizes["Y"] + n for n, i in enumerate(watched)}
    _limit_entries(source, sizes["X"], len(columns), common, cases)
    boxes = _boxes(sizes["X"], columns, common, cases)
    if not boxes:
        raise source.raises(source.path, 0, 0, "its constraints contradict each other: nothing satisfies them")
    for box in boxes:
        _expect_bounded(source, box, declared)
    return Property(sizes["X"], sizes["Y"], boxes, tuple(watched))


def _read(source: Source) -> tuple[dict[Variable, int], list[Disjunction]]:
    """The declared variables with their offsets, and the asserted formulas."""
    declared: dict[Variable, int] = {}
    asserted: list[Disjunction] = []
    for form in forms(source):
        command = head(form)
        if command in ("declare-const", "declare-fun"):
            _declare(source, form, declared)
        elif command == "assert":
            if len(form.items) != 2:
                raise source.error(form.offset, f"assert takes one constraint, not {len(form.items) - 1}")
            asserted.append(disjunction(source, form.items[1], declared))
        elif command not in ("set-logic", "set-info", "check-sat", "get-model", "exit"):  # they constrain nothing
            what = shown(command) if command else "this"
            raise source.error(form.offset, f"{what} is no command of VNN-LIB 1.0: declare-const, assert")
    return declared, asserted


def _declare(source: Source, form: Form, declared: dict[Variable, int]) -> None:
    """Enters `(declare-const X_0 Real)` or `(declare-fun X_0 () Real)`."""
    words = [item.text if isinstance(item, Atom) else "()" if not item.items else "(..)" for item in form.items]
    variable = variable_name(words[1]) if len(words) > 1 else None
    if variable is None or words[2:] != (["Real"] if words[0] == "declare-const" else ["()", "Real"]):
        raise source.error(form.offset, "declarations are (declare-const X_i Real) for inputs and Y_i for outputs")
    if variable in declared:
        raise source.error(form.items[1].offset, f"{words[1]} is declared twice")
    if len(declared) == limits.VARIABLES:
        raise source.error(form.offset, f"more than {limits.VARIABLES} variables")
    declared[variable] = form.items[1].offset


def _count(source: Source, kind: str, declared: dict[Variable, int]) -> int:
    """How many inputs or outputs there are; they must be numbered without gaps."""
    offsets = {index: offset for (which, index), offset in declared.items() if which == kind}
    if not offsets:
        raise source.raises(source.path, 0, 0, f"declares no {kind}_i")
    if (last := max(offsets)) != len(offsets) - 1:
        gap = next(i for i in range(last) if i not in offsets)
        raise source.error(offsets[last], f"{kind}_{last} is declared but {kind}_{gap} is not")
    return len(offsets)


def _case(conjunctions: Iterable[Conjunction]) -> _Case:
    """Tells bounds of one input from other rows. Rows without variables that hold are left out."""
    bounds: Bounds = {}
    rows = []
    for row in (row for rows in conjunctions for row in rows):
        ((kind, index), factor), *others = row.coefficients.items() or [(("", 0), 0.0)]
        if kind == "X" and not others:
            tighter, side = (min, "<=") if factor > 0 else (max, ">=")
            value = row.bound / factor
            bounds[index, side] = tighter(bounds.get((index, side), value), value)
        elif factor or row.bound < 0:
            rows.append(row)
    return _Case(bounds, tuple(rows))


def _contradicts(rows: Iterable[Row]) -> bool:
    """Whether one of the rows is 0 <= a negative number."""
    return any(not row.coefficients and row.bound < 0 for row in rows)


def _limit_entries(source: Source, num_inputs: int, width: int, common: _Case, cases: list[_Case]) -> None:
    boxes = len({frozenset(each.bounds.items()) for each in cases})
    entries = 2 * boxes * num_inputs + sum(len(common.rows) + len(each.rows) for each in cases) * (width + 1)
    if entries > limits.ENTRIES:
        reason = f"its boxes and clauses hold {entries} numbers, more than {limits.ENTRIES}"
        raise source.raises(source.path, 0, 0, reason)


def _boxes(num_inputs: int, columns: dict[Variable, int], common: _Case, cases: list[_Case]) -> tuple[Box, ...]:
    """One box for all cases of equal bounds, in order; without cases that no input satisfies."""
    together: dict[frozenset, list[Clause]] = {}
    for each in cases:
        clause = _clause((*common.rows, *each.rows), columns)
        together.setdefault(frozenset(each.bounds.items()), []).append(clause)
    lower, upper = np.full(num_inputs, -np.inf), np.full(num_inputs, np.inf)
    _narrow(lower, upper, common.bounds.items())
    found = []
    for own, clauses in together.items():
        low, high = lower.copy(), upper.copy()
        _narrow(low, high, own)
        if np.all(low <= high):
            found.append(Box(low, high, tuple(clauses)))
    return tuple(found)


def _narrow(lower: np.ndarray, upper: np.ndarray, bounds: Iterable[tuple[tuple[int, str], float]]) -> None:
    for (index, side), value in bounds:
        if side == "<=":
            upper[index] = min(upper[index], value)
        else:
            lower[index] = max(lower[index], value)


def _expect_bounded(source: Source, box: Box, declared: dict[Variable, int]) -> None:
    for side, ends in (("lower", box.lower), ("upper", box.upper)):
        if not np.all(np.isfinite(ends)):
            first = int(np.argmin(np.isfinite(ends)))
            raise source.error(declared["X", first], f"X_{first} has no {side} bound in some case; inputs are boxes")


def _clause(rows: tuple[Row, ...], columns: dict[Variable, int]) -> Clause:
    A, b = np.zeros((len(rows), len(columns))), np.array([row.bound for row in rows], np.float64)
    for i, row in enumerate(rows):
        for variable, value in row.coefficients.items():
            A[i, columns[variable]] = value
    return Clause(A, b)
