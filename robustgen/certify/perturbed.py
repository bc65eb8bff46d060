"""The analysis of a network whose every equation may be off by its rounding error: what `sound` hands to `analysed`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robustgen.certify.affine import is_affine
from robustgen.certify.interpreter import Equation, Program, Slot
from robustgen.certify.planes import Plane, Planes
from robustgen.certify.rounding import COMPARISONS, COPIES, NOISE, REPEATS, TINY, Error, U, errors, is_real, sizes
from robustgen.certify.rules import RULES
from robustgen.certify.state import Amend, Refine, Region, State, mapped
from robustgen.core import Array, Interval, Threat

_UP = 1 + 2.0**-20
"""What a number that is computed in float64 is multiplied by to be an upper bound."""

Doubts = dict[Slot, Array]
"""How far constants may be off that the network computes itself in float32, by slot."""


def rounded() -> Amend:
    """Accounts for the errors of each equation, in the course of one analysis in float64."""
    doubts: Doubts = {}

    def amend(program: Program, number: int, state: State) -> None:
        equation = program.equations[number]
        mine = [doubts.get(slot) for slot in equation.inputs]
        if not program.perturbed.intersection(equation.inputs):
            _doubt(equation, state, mine, doubts)
        elif equation.name in COMPARISONS:
            (slot,) = equation.outputs
            state.values[slot] = mapped(equation, state.values, lambda e, *operands: _compared(e, operands, mine))
        elif is_real(state.values[equation.outputs[0]]):
            if equation.name not in COPIES or any(d is not None for d in mine):
                _widen(equation, state, mine)
            if not is_affine(equation, program):
                state.planes[number] = outward(equation, state, state.planes[number])

    return amend


def defined(refine: Refine) -> Refine:
    """Bounds that are not known are infinite."""
    return lambda program, state, slot, at: _known(refine(program, state, slot, at))


def widened(threat: Threat, x: Array, box: Interval) -> Region:
    """The sets around x, wider than all that their box and the computation of their support may have lost, in
    float64."""
    x, box = x.astype(jnp.float64), Interval(*(end.astype(jnp.float64) for end in box))
    size = sizes(box)
    margin = 2.0**-21 * size

    def support(A: Array, x: Array) -> Array:
        return threat.support(A, x) + NOISE * jnp.sum(jnp.abs(A) * size, tuple(range(A.ndim - x.ndim + 1, A.ndim)))

    return Region(threat._replace(support=support), x, Interval(box.lower - margin, box.upper + margin))


def outward(equation: Equation, state: State, planes: Planes) -> Planes:
    """Planes below and above by what float64 may have lost in them; they may have axes [P, 1] after the batch's."""
    moved = [sizes(state.values[s]) for s in equation.inputs if isinstance(state.values[s], Interval)]

    def lost(plane: Plane, known: Sequence[Array]) -> Array:
        size = jnp.abs(plane.offset)
        for slope, most in zip(plane.slopes, known, strict=True):
            if slope is not None and jnp.issubdtype(most.dtype, jnp.floating):
                terms = jnp.abs(slope) * most
                reduced = "axes" in equation.params
                size = size + (_summed(terms, equation, most.ndim) if reduced else terms)
        return NOISE * size

    def one(planes: Planes, known: Sequence[Array]) -> Planes:
        (low, high) = planes
        return Planes(
            low._replace(offset=low.offset - lost(low, known)), high._replace(offset=high.offset + lost(high, known))
        )

    return planes if isinstance(planes, list) else jax.vmap(one)(planes, moved)


def _summed(terms: Array, equation: Equation, ndim: int) -> Array:
    """Over the axes that the equation reduces; terms may have leading axes more than its operand."""
    return jnp.sum(terms, tuple(axis - ndim for axis in equation.params["axes"]))


def _doubt(equation: Equation, state: State, mine: list[Array | None], doubts: Doubts) -> None:
    """A constant that the network computes: bounded as if its operands moved, then its middle, and half the width."""
    values = [state.values[slot] for slot in equation.inputs]
    results = [state.values[slot] for slot in equation.outputs]
    unsure = any(d is not None for d in mine)
    exact = equation.name in COPIES | REPEATS or equation.name == "iota" or not any(map(is_real, results))
    if exact and not unsure:
        return
    values = [v if d is None else Interval(v - d, v + d) for v, d in zip(values, mine, strict=True)]
    hulls = RULES[equation.name](equation, *values) if unsure else [Interval(r, r) for r in results]
    hulls = hulls if isinstance(hulls, list) else [hulls]
    if equation.name == "convert_element_type" and not is_real(values[0]):  # a whole number
        found = [Error(jnp.abs(results[0]), U * jnp.abs(results[0]))]
    else:
        found = errors(equation, values, [None] * len(values), hulls)
    for slot, hull, error in zip(equation.outputs, hulls, found, strict=True):
        low, high = _wider(hull, error)
        state.values[slot], doubts[slot] = (low + high) / 2, (high - low) / 2 * _UP


def _widen(equation: Equation, state: State, mine: list[Array | None]) -> None:
    """Intervals wider by the errors, which become the slack of their slots."""
    count = len(equation.inputs)

    def one(_: Equation, *values: Any) -> list[tuple[Interval, Array]]:
        found = errors(equation, values[:count], mine, list(values[count:]))
        return [(_wider(result, error), _off(error)) for result, error in zip(values[count:], found, strict=True)]

    joint = equation._replace(inputs=(*equation.inputs, *equation.outputs))
    for slot, (interval, slack) in zip(equation.outputs, mapped(joint, state.values, one), strict=True):
        state.values[slot], state.slack[slot] = interval, slack


def _compared(equation: Equation, operands: Sequence[Any], mine: list[Array | None]) -> Interval:
    """Decided only where the operands are further apart than what may be taken for zero, and than their doubt."""
    ends = []
    for operand, doubt in zip(operands, mine, strict=True):
        if isinstance(operand, Interval) or is_real(operand):
            low, high = operand if isinstance(operand, Interval) else (operand, operand)
            apart = 2 * TINY + (0.0 if doubt is None else doubt)
            operand = Interval(low - apart, high + apart) if is_real(low) else operand
        ends.append(operand)
    return RULES[equation.name](equation, *ends)


def _off(error: Error) -> Array:
    return error.off * _UP + NOISE * error.size


def _wider(interval: Interval, error: Error) -> Interval:
    off = _off(error)
    return _known(Interval(interval.lower - off, interval.upper + off))


def _known(interval: Interval) -> Interval:
    low, high = interval
    return Interval(jnp.where(jnp.isnan(low), -jnp.inf, low), jnp.where(jnp.isnan(high), jnp.inf, high))
