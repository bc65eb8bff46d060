"""CROWN (Zhang et al. 2018, arXiv 1811.00866; Xu et al. 2020, arXiv 2002.12920) for any JAX function.

A linear bound of each specification is carried back from the output to the input and concretized over the threat set,
in whatever norm. The bounds of the values between, which the relaxations need, come from the same pass (`crown`) or
from interval arithmetic (`crown_ibp`: differentiable, and cheap enough to train with).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.certify import patches as windows
from robustgen.certify.affine import is_affine
from robustgen.certify.backward import Front, Relation, Sides, affine_part, backward, front
from robustgen.certify.interpreter import Program, Slot
from robustgen.certify.patches import Patches
from robustgen.certify.rows import chosen, starts
from robustgen.certify.state import Refine, Region, State, analysed, first_planes, mapped, program_of, region
from robustgen.core import Array, Interval, LogitsFn, Threat
from robustgen.knobs import Count

BUDGET = 1 << 30
"""Bytes that the coefficients of one pass may take; more rows than fit are done one lot after the other."""


def crown_margins(logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, refine: Refine | None = None) -> Array:
    """Lower bounds [B, K] of logit_y - logit_k over the threat set around x [B, ...]; exactly 0 at k = y.

    `refine` gives the bounds of the values between: `unstable` (default), `every` (textbook CROWN) or `intervals`.
    """
    program, at = program_of(logits_fn, x), region(threat, x)
    state = analysed(program, at, refine or unstable())
    return margins(program, state, at, y)


def crown_ibp_margins(logits_fn: LogitsFn, x: Array, y: Array, threat: Threat) -> Array:
    """The same from interval bounds of the values between (Zhang et al. 2020, arXiv 1906.06316): CROWN-IBP.

    The specification is composed with the last layer, so one pass of K - 1 rows an example is all (loss fusion as in Xu
    et al. 2020, section 3.3, without its upper bound of the loss). Differentiable in whatever `logits_fn` closes over.
    """
    return crown_margins(logits_fn, x, y, threat, intervals)


def margins(program: Program, state: State, at: Region, y: Array) -> Array:
    """Lower bounds [B, K] of logit_y - logit_k from what is known of a batch; 0 at k = y."""
    classes = program.shapes[program.output].shape[0]
    lower = bounded(
        program, state, at, lambda label: front({program.output: differences(label, classes)}), y, mirrored=False
    )
    return with_zero(lower[..., 0], y)


def differences(label: Array, classes: int) -> Array:
    """The rows [K - 1, 1, K] that make logit_label - logit_k of logits, k ascending without the label."""
    others = jnp.arange(classes - 1)
    others = others + (others >= label)
    dtype = jnp.result_type(float)
    return (jax.nn.one_hot(label, classes, dtype=dtype) - jax.nn.one_hot(others, classes, dtype=dtype))[:, None]


def with_zero(others: Array, y: Array) -> Array:
    """[B, K - 1] with a zero put in at each row's label: [B, K]."""
    classes = others.shape[1] + 1
    k = jnp.arange(classes)
    taken = jnp.take_along_axis(others, jnp.clip(k - (k > y[:, None]), 0, classes - 2), 1)
    return jnp.where(k == y[:, None], 0.0, taken)


def intervals(program: Program, state: State, slot: Slot, at: Region) -> Interval:
    """Refines nothing: what interval arithmetic gave."""
    return state.values[slot]


def every(*, budget: Count = BUDGET) -> Refine:
    """All rows by CROWN, not intersected with interval bounds: the textbook method, and the reference of parity."""

    def refine(program: Program, state: State, slot: Slot, at: Region) -> Interval:
        start = starts(program, slot)
        lot = _fitting(program, slot, at, start.width, start.count, budget)
        numbers = jnp.arange(-(-start.count // lot) * lot, dtype=jnp.int32).reshape(-1, lot) % start.count

        def bounds(group: Array) -> Array:
            return bounded(program, state, at, lambda _: front({slot: start.groups(group)}), None, mirrored=True)

        found = bounds(numbers[0])[None] if len(numbers) == 1 else jax.lax.map(bounds, numbers)
        lower, upper = jnp.split(jnp.moveaxis(found, 0, 1), 2, -1)  # [B, lots, lot, O]
        return Interval(*(start.placed(v.reshape(v.shape[0], -1, v.shape[-1])) for v in (lower, -upper)))

    return refine


def unstable(*, budget: Count = BUDGET, lot: Count | None = None) -> Refine:
    """Only the rows that a relaxation is loose on, found by interval arithmetic; the tighter of both bounds is kept.

    On the first values refined these rows' intervals are at least as tight as the textbook method's; later ones, and
    margins, need not be: the slopes that CROWN chooses depend on the intervals before. Rows are done in lots of up to
    `lot` (16 on a CPU, 256 elsewhere), as many lots as the example needs that needs most, in one compiled loop: nothing
    recompiles, but nothing differentiates backwards either.
    """

    def refine(program: Program, state: State, slot: Slot, at: Region) -> Interval:
        known, start = state.values[slot], starts(program, slot)
        size, batch = known.lower[0].size, known.lower.shape[0]
        most = lot or (16 if jax.default_backend() == "cpu" else 256)
        rows = _fitting(program, slot, at, 1, min(most, size), budget)
        loose = loose_rows(program, state, slot).reshape(batch, size)
        order = jnp.pad(jnp.argsort(~loose, 1, stable=True).astype(jnp.int32), ((0, 0), (0, -size % rows)), mode="edge")
        whole = front({slot: start.groups(jnp.arange(start.count, dtype=jnp.int32))})
        known_rows = affine_part(program, whole, state.exact(), state.slack or ())
        each = jnp.arange(batch, dtype=jnp.int32)[:, None]

        def step(i: Array, ends: Interval) -> Interval:
            which = jax.lax.dynamic_slice_in_dim(order, i * rows, rows, 1)
            found = bounded(program, state, at, lambda mine: chosen(known_rows, start, mine), which, mirrored=True)
            return Interval(
                ends.lower.at[each, which].max(found[..., 0]), ends.upper.at[each, which].min(-found[..., 1])
            )

        lots = -(-jnp.max(jnp.sum(loose, 1, dtype=jnp.int32)) // rows)
        flat = Interval(*(end.reshape(batch, size) for end in known))
        return Interval(*(end.reshape(known.lower.shape) for end in jax.lax.fori_loop(jnp.int32(0), lots, step, flat)))

    return refine


def loose_rows(program: Program, state: State, slot: Slot) -> Array:
    """Where [B, *shape] an equation that uses the slot has two different planes over its interval."""
    loose = jnp.zeros(state.values[slot].lower.shape, bool)
    for equation in program.equations:
        if slot in equation.inputs and not is_affine(equation, program):
            others = {s for s in equation.inputs if s in program.perturbed and s != slot}
            if others or program.shapes[equation.outputs[0]].shape != program.shapes[slot].shape:
                return jnp.ones_like(loose)
            planes = mapped(equation, state.values, first_planes)
            if isinstance(planes, list) or planes.lower.slopes[0] is None:
                loose = loose | (jax.tree.leaves(planes)[0] != jax.tree.leaves(planes)[1])
                continue
            (low,), (high,) = planes.lower.slopes, planes.upper.slopes
            loose = loose | (low != high) | (planes.lower.offset != planes.upper.offset)
    return loose


def bounded(
    program: Program, state: State, at: Region, start: Callable[..., Front], of: Array | None, *, mirrored: bool
) -> Array:
    """Lower bounds [B, P, O] of rows over the set; `start(of[b])` makes those of example b, by slot."""
    exact = state.exact()

    def one(planes, mine, sides) -> Relation:
        return backward(program, start(mine), planes, exact, sides, mirrored=mirrored)

    batched = jax.vmap(one, in_axes=(0, None if of is None else 0, 0), axis_size=at.x.shape[0])
    sides = {slot: Sides(slack=slack) for slot, slack in (state.slack or {}).items()}
    return concretized(batched(state.planes, of, sides), program, at)


def concretized(relation: Relation, program: Program, at: Region) -> Array:
    """The least values [B, P, O] of linear bounds over the sets."""
    coefficients, offset = relation
    if coefficients is None:
        return offset
    if at.threat.is_box:
        return offset + jax.vmap(_least_in_box)(coefficients, at.box)
    if isinstance(coefficients, Patches):
        coefficients = jax.vmap(lambda c: windows.dense(c, program.shapes[program.input].shape))(coefficients)
    return offset - jnp.moveaxis(at.threat.support(-jnp.moveaxis(coefficients, 0, 2), at.x), -1, 0)


def _least_in_box(coefficients: Array | Patches, box: Interval) -> Array:
    values, low, high = coefficients, *box
    if isinstance(coefficients, Patches):
        values, low, high = coefficients.values, windows.under(coefficients, low), windows.under(coefficients, high)
    return jnp.sum(values * jnp.where(values > 0, low, high), tuple(range(2, values.ndim)))


def _fitting(program: Program, slot: Slot, at: Region, width: int, most: int, budget: int) -> int:
    """How many groups of rows fit into the budget: of the largest map before them, four copies and both signs."""
    largest = max(program.shapes[s].size for s in program.perturbed if s <= slot)
    group = at.x.shape[0] * largest * width * 8 * at.x.dtype.itemsize
    return int(min(max(budget // group, 1), most))
