"""Linear terms and comparisons over a property's variables: `(<= (+ Y_0 (* 2 X_3)) 1.5)` -> coefficients and bound."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from robustgen.exchange.sexpr import Atom, Expression, Form, Source, head, number, shown

Variable = tuple[str, int]
"""("X", 3) is X_3."""

Coefficients = dict[Variable, float]


class Row(NamedTuple):
    """sum coefficient * variable <= bound, read at `offset`; no coefficient is 0."""

    coefficients: Coefficients
    bound: float
    offset: int


class Term(NamedTuple):
    """sum coefficient * variable + constant."""

    coefficients: Coefficients
    constant: float


def comparison(source: Source, form: Form, declared: Mapping[Variable, int]) -> Row:
    """The row of `(<= a b)` or `(>= a b)`. Numbers are added and multiplied in float64."""
    if len(form.items) != 3:
        raise source.error(form.offset, f"{head(form)} compares two terms, not {len(form.items) - 1}")
    low, high = form.items[1:] if head(form) == "<=" else form.items[:0:-1]
    low, high = term(source, low, declared), term(source, high, declared)
    joint = _total([low, _scaled(-1.0, high)])
    kept = {variable: value for variable, value in joint.coefficients.items() if value}
    numbers = [*kept.values(), joint.constant]
    if not all(map(math.isfinite, numbers)):
        raise source.error(form.offset, "has a number beyond float64")
    return Row(kept, 0.0 - joint.constant, form.offset)


def term(source: Source, expression: Expression, declared: Mapping[Variable, int]) -> Term:
    """A number, a variable, or a sum, difference or product of terms, of which at most one factor has variables."""
    if isinstance(expression, Atom):
        return _word(source, expression, declared)
    operator, operands = head(expression), [term(source, item, declared) for item in expression.items[1:]]
    if operator not in ("+", "-", "*") or not operands:
        what = shown(operator) if operator else "this"
        raise source.error(expression.offset, f"{what} is no linear term: numbers, X_i, Y_i, (+ ..), (- ..), (* ..)")
    if operator == "+":
        return _total(operands)
    if operator == "-":
        first, *others = operands
        return _total([first, *(_scaled(-1.0, other) for other in others)]) if others else _scaled(-1.0, first)
    varying = [operand for operand in operands if operand.coefficients]
    if len(varying) > 1:
        raise source.error(expression.offset, "multiplies two terms with variables; only linear terms are supported")
    factor = math.prod(operand.constant for operand in operands if not operand.coefficients)
    return _scaled(factor, varying[0] if varying else Term({}, 1.0))


def _word(source: Source, atom: Atom, declared: Mapping[Variable, int]) -> Term:
    value = number(atom.text)
    if value is not None:
        return Term({}, value)
    variable = variable_name(atom.text)
    if variable is None or variable not in declared:
        raise source.error(atom.offset, f"{shown(atom.text)} is neither a number nor a declared variable")
    return Term({variable: 1.0}, 0.0)


def variable_name(text: str) -> Variable | None:
    """("X", 3) for "X_3", None for what is no name of an input or output."""
    kind, _, index = text.partition("_")
    usual = kind in ("X", "Y") and index.isascii() and index.isdigit() and len(index) <= 9
    return (kind, int(index)) if usual and str(int(index)) == index else None


def _scaled(factor: float, of: Term) -> Term:
    return Term({variable: factor * value for variable, value in of.coefficients.items()}, factor * of.constant)


def _total(terms: list[Term]) -> Term:
    coefficients: Coefficients = {}
    for each in terms:
        for variable, value in each.coefficients.items():
            coefficients[variable] = coefficients.get(variable, 0.0) + value
    return Term(coefficients, sum(each.constant for each in terms))
