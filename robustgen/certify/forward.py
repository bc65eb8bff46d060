"""Linear bounds carried forward: every value between two linear functions of the input (Xu et al. 2020, section 3.2).

Forward bounds cost a pass for each input, backward ones (`crown`) a pass for each value: forward is the cheaper way
where inputs are few, and looser, since a bound once taken is not taken back through the layers before it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.affine import is_affine
from robustgen.certify.backward import REDUCED
from robustgen.certify.crown import intervals
from robustgen.certify.interpreter import Equation, Program, Slot, UnknownPrimitive
from robustgen.certify.planes import Plane
from robustgen.certify.state import Region, State, analysed, is_real, program_of, region
from robustgen.core import Array, Interval, LogitsFn, Threat

_POSITIVE = frozenset(
    """add add_any reshape transpose broadcast_in_dim slice squeeze rev split copy copy_p expand_dims concatenate stack
    unstack tile pad reduce_sum cumsum reduce_window_sum gather dynamic_slice select_n convert_element_type""".split()
)
"""Affine equations that have no negative weight: lower bounds make lower bounds."""

_WEIGHTED = frozenset("mul div dot_general conv_general_dilated".split())


class Line(NamedTuple):
    """sum over inputs i of slope[i] * input[i] + offset; slope [I, *shape], offset [*shape], of one example."""

    slope: Array
    offset: Array


class Lines(NamedTuple):
    """lower <= value <= upper over the set."""

    lower: Line
    upper: Line


def forward_margins(logits_fn: LogitsFn, x: Array, y: Array, threat: Threat) -> Array:
    """Lower bounds [B, K] of logit_y - logit_k over the threat set around x [B, ...]; exactly 0 at k = y.

    Takes memory for as many copies of every value as there are inputs.
    """
    program, at = program_of(logits_fn, x), region(threat, x)
    known = lines(program, at)[program.output]

    def difference(found: Lines, label: Array) -> Line:
        return Line(*(low[..., label][..., None] - high for low, high in zip(found.lower, found.upper, strict=True)))

    lower = _least(jax.vmap(difference)(known, y), at)
    return jnp.where(jnp.arange(lower.shape[1]) == y[:, None], 0.0, lower)


def lines(program: Program, at: Region) -> dict[Slot, Lines]:
    """The lines [B, ...] of every slot that depends on the input and holds real numbers."""
    size = at.x[0].size
    shape = at.x.shape[1:]
    unit = Line(jnp.eye(size, dtype=at.x.dtype).reshape(size, *shape), jnp.zeros(shape, at.x.dtype))
    whole = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(at.x), *a.shape)), Lines(unit, unit))
    found = {program.input: whole}

    def amend(program: Program, number: int, state: State) -> None:
        equation = program.equations[number]
        if not program.perturbed.intersection(equation.inputs):
            return
        for slot, mine in zip(equation.outputs, _moved(program, number, state, found), strict=True):
            if mine is not None:
                found[slot] = mine
                low, high = _least(mine.lower, at), -_least(jax.tree.map(jnp.negative, mine.upper), at)
                known = state.values[slot]
                state.values[slot] = Interval(jnp.maximum(known.lower, low), jnp.minimum(known.upper, high))

    analysed(program, at, intervals, amend)
    return found


def _moved(program: Program, number: int, state: State, found: dict[Slot, Lines]) -> list[Lines | None]:
    """The lines of an equation's results."""
    equation = program.equations[number]
    if not all(is_real(program, slot) for slot in equation.outputs):
        return [None] * len(equation.outputs)
    known = {slot: found[slot] for slot in equation.inputs if slot in found}
    if is_affine(equation, program):
        exact = {slot: state.values[slot] for slot in equation.inputs if slot not in known}
        return jax.vmap(lambda k: _affine(equation, k, exact))(known)
    results = [state.values[slot] for slot in equation.outputs]
    if len(results) > 1:
        raise UnknownPrimitive(equation.name, "has several results that are not affine, which have no lines")
    planes = state.planes[number]
    return [jax.vmap(lambda k, p: _relaxed(equation, k, p))(known, planes)]


def _affine(equation: Equation, known: dict[Slot, Lines], exact: dict[Slot, Array]) -> list[Lines]:
    def through(ends: dict[Slot, Line], constants: Callable[[Array], Array] = lambda a: a) -> list[Line]:
        def function(values: dict[Slot, Array]) -> list[Array]:
            return equation.plain(*(values[s] if s in values else constants(exact[s]) for s in equation.inputs))

        at_zero = function({slot: jnp.zeros_like(line.offset) for slot, line in ends.items()})
        offsets = function({slot: line.offset for slot, line in ends.items()})
        slopes = jax.vmap(function)({slot: line.slope for slot, line in ends.items()})
        return [Line(s - z, o) for s, z, o in zip(slopes, at_zero, offsets, strict=True)]

    lower = {slot: mine.lower for slot, mine in known.items()}
    upper = {slot: mine.upper for slot, mine in known.items()}
    if equation.name in _POSITIVE:
        pairs = zip(through(lower), through(upper), strict=True)
    elif equation.name == "neg":
        pairs = zip(through(upper), through(lower), strict=True)
    elif equation.name == "sub":
        first, second = equation.inputs
        swapped = [{first: a, second: b} for a, b in _crossed(known, first, second)]
        pairs = zip(
            *(through({s: line for s, line in ends.items() if line is not None}) for ends in swapped), strict=True
        )
    elif equation.name in _WEIGHTED:
        middle = {slot: _half(mine.lower, mine.upper, 1) for slot, mine in known.items()}
        spread = {slot: _half(mine.lower, mine.upper, -1) for slot, mine in known.items()}
        parts = list(zip(through(middle), through(spread, jnp.abs), strict=True))
        pairs = [(_sum(m, s, 1), _sum(m, s, -1)) for m, s in parts]
    else:
        raise UnknownPrimitive(equation.name, "has no lines")
    return [Lines(low, high) for low, high in pairs]


def _crossed(known: dict[Slot, Lines], first: Slot, second: Slot) -> list[tuple[Line | None, Line | None]]:
    """The operands' lines for the lower and for the upper bound of a difference."""
    a, b = known.get(first), known.get(second)
    return [(a and a.lower, b and b.upper), (a and a.upper, b and b.lower)]


def _half(a: Line, b: Line, sign: int) -> Line:
    return jax.tree.map(lambda p, q: (p + sign * q) / 2, a, b)


def _sum(a: Line, b: Line, sign: int) -> Line:
    return jax.tree.map(lambda p, q: p + sign * q, a, b)


def _relaxed(equation: Equation, known: dict[Slot, Lines], planes) -> Lines:
    moved = [slot for slot in equation.inputs if slot in known]

    def end(plane: Plane, lower: bool) -> Line:
        total = Line(jnp.zeros((len(known[moved[0]].lower.slope), *plane.offset.shape)), plane.offset)
        for slot, slope in zip(moved, plane.slopes, strict=True):
            if slope is not None:
                near, far = known[slot] if lower else known[slot][::-1]
                mine = jax.tree.map(lambda n, f, s=slope: s * jnp.where(s >= 0, n, f), near, far)
                if equation.name in REDUCED:
                    axes = equation.params["axes"]
                    mine = Line(jnp.sum(mine.slope, tuple(a + 1 for a in axes)), jnp.sum(mine.offset, axes))
                total = _sum(total, mine, 1)
        return total

    return Lines(end(planes.lower, True), end(planes.upper, False))


def _least(line: Line, at: Region) -> Array:
    """The least values [B, *shape] of lines [B, I, *shape] over the sets."""
    batch, size = line.slope.shape[:2]
    flat = jnp.moveaxis(line.slope.reshape(batch, size, -1), 2, 0).reshape(-1, *at.x.shape)
    return line.offset - at.threat.support(-flat, at.x).T.reshape(line.offset.shape)
