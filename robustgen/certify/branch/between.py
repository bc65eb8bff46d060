"""Bounds of the values between, each neuron's own by alpha-CROWN: what a search starts from, once for each set."""

import dataclasses

import jax
import jax.numpy as jnp

from robustgen.certify import patches as windows
from robustgen.certify.alpha import Ascent, ascended, clipped, first_alphas, middle, relation
from robustgen.certify.backward import Front, affine_part, front
from robustgen.certify.crown import concretized, loose_rows
from robustgen.certify.interpreter import Program, Slot
from robustgen.certify.patches import Patches
from robustgen.certify.rows import chosen, starts
from robustgen.certify.state import Refine, Region, State
from robustgen.core import Array, Interval


def ascended_rows(steps: Ascent, *, lot: int) -> Refine:
    """Every interval that interval arithmetic leaves loose: both ends ascended, `lot` neurons at a time.

    Each end has slopes of its own, so each is as tight as alpha-CROWN makes it; jointly optimised ones (Xu et al. 2021)
    cost less and are looser.
    """

    def refine(program: Program, state: State, slot: Slot, at: Region) -> Interval:
        known, start = state.values[slot], starts(program, slot)
        batch, size = known.lower.shape[0], known.lower[0].size
        rows = min(lot, size)
        order, lots = _in_lots(loose_rows(program, state, slot).reshape(batch, size), rows)
        known_rows = affine_part(program, front({slot: start.groups(jnp.arange(start.count))}), state.exact())
        first = first_alphas(program, _before(program, state, slot), 2 * rows)
        each = jnp.arange(batch)[:, None]

        def lower_ends(which: Array) -> Array:
            begin = jax.vmap(lambda mine: _with_negatives(chosen(known_rows, start, mine)))(which)

            def bound(alphas) -> Array:
                return concretized(relation(program, state, begin, alphas), program, at)[..., 0]

            return ascended(bound, middle(first), clipped, steps, bound(first))[0]

        def step(i: Array, ends: Interval) -> Interval:
            which = jax.lax.dynamic_slice_in_dim(order, i * rows, rows, 1)
            low, high = jnp.split(lower_ends(which), 2, 1)
            return Interval(ends.lower.at[each, which].max(low), ends.upper.at[each, which].min(-high))

        flat = Interval(*(end.reshape(batch, size) for end in known))
        return Interval(*(end.reshape(known.lower.shape) for end in jax.lax.fori_loop(0, lots, step, flat)))

    return refine


def _in_lots(loose: Array, rows: int) -> tuple[Array, Array]:
    """The loose rows first, padded to whole lots, and how many lots they fill in the example that has most."""
    order = jnp.argsort(~loose, 1, stable=True)
    padded = jnp.pad(order, ((0, 0), (0, -loose.shape[1] % rows)), mode="edge")
    return padded, -(-jnp.max(jnp.sum(loose, 1)) // rows)


def _before(program: Program, state: State, slot: Slot) -> State:
    """The state as far as rows of a slot look at it."""
    made = next((n for n, e in enumerate(program.equations) if slot in e.outputs), 0)
    return state._replace(planes={n: p for n, p in state.planes.items() if n < made})


def _with_negatives(rows: Front) -> Front:
    """Rows along P, followed by their negatives."""

    def both(c: Array | Patches) -> Array | Patches:
        if isinstance(c, windows.Patches):
            return jax.tree.map(lambda v, a: jnp.concatenate([v, a]), c, _negated(c))
        return jnp.concatenate([c, -c])

    return Front({s: both(c) for s, c in rows.coefficients.items()}, jnp.concatenate([rows.offset, -rows.offset]))


def _negated(c: Patches) -> Patches:
    return dataclasses.replace(c, values=-c.values)
