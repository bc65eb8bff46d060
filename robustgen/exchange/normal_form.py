"""Formulas of comparisons, `and` and `or` in disjunctive normal form: a choice of rows that must hold together."""

import itertools
import math
from collections.abc import Mapping, Sequence

from robustgen.exchange import limits
from robustgen.exchange.affine import Row, Variable, comparison
from robustgen.exchange.sexpr import Expression, Form, Source, head, shown

Conjunction = tuple[Row, ...]
Disjunction = tuple[Conjunction, ...]


def disjunction(source: Source, formula: Expression, declared: Mapping[Variable, int]) -> Disjunction:
    """The formula as conjunctions of which one must hold. Raises `source.raises`, also where there are too many."""
    if not isinstance(formula, Form):
        raise source.error(formula.offset, f"{shown(formula.text)} is no constraint: {_ACCEPTED}")
    operator = head(formula)
    if operator in ("<=", ">="):
        return ((comparison(source, formula, declared),),)
    if operator not in ("and", "or"):
        what = shown(operator) if operator else "this"
        raise source.error(formula.offset, f"{what} is no constraint: {_ACCEPTED}")
    parts = [disjunction(source, item, declared) for item in formula.items[1:]]
    if not parts:
        raise source.error(formula.offset, f"({operator}) of nothing")
    if operator == "and":
        return conjoined(source, parts, formula.offset)
    _limited(source, formula.offset, sum(map(len, parts)), sum(len(rows) for part in parts for rows in part))
    return tuple(itertools.chain(*parts))


_ACCEPTED = "accepted are (and ..), (or ..), (<= a b) and (>= a b)"


def conjoined(source: Source, parts: Sequence[Disjunction], offset: int) -> Disjunction:
    """What holds where all parts do: every choice of one conjunction from each."""
    longest = sum(max(map(len, part)) for part in parts)
    count = math.prod(map(len, parts))
    _limited(source, offset, count, count * longest)
    return tuple(tuple(itertools.chain(*choice)) for choice in itertools.product(*parts))


def _limited(source: Source, offset: int, disjuncts: int, atoms: int) -> None:
    if disjuncts > limits.DISJUNCTS or atoms > limits.ATOMS:
        reason = f"becomes {disjuncts} cases with {atoms} comparisons; at most {limits.DISJUNCTS} and {limits.ATOMS}"
        raise source.error(offset, reason)
