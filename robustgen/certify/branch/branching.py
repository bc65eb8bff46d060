"""Which neuron to split: estimates for all of them, then the children of a few bounded to choose among these.

The estimates are those of BaBSR (Bunel et al. 2020, JMLR 21) in a form that any element-wise function has: with the
coefficient c of the function's result, and the operand s at the minimum of the relaxation, a child gains
c+ (lower plane of the child - that of the parent)(s) + c- (upper ...)(s), less what it costs to keep s in the child.
BaBSR has the bias of the layer in place of s, and reads c off the backward pass; here both are gradients of the bound.
Bounding both children of the best few is FSB (De Palma et al. 2021, arXiv 2104.06718), by whole linear passes with the
parent's duals ("kFSB").
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.branch.bounding import Duals, Model, bounds, duals_of, known_within, region_of
from robustgen.certify.branch.domains import Claims, Splits
from robustgen.certify.branch.sites import points
from robustgen.certify.planes import Planes
from robustgen.certify.state import State, first_planes, mapped
from robustgen.core import Array, Interval


class Candidates(NamedTuple):
    """Every neuron of every site in a row [B, N]: where it would be split, and the estimate; -inf if it cannot be."""

    point: Array
    score: Array


def candidates(model: Model, state: State, claims: Claims, duals: Duals) -> Candidates:
    """The estimated gains of all splits of parts of claims."""
    nudges = {n: jnp.zeros_like(_result(model, state, n)) for site in model.sites for n in site.equations}

    def total(nudges, tilts) -> Array:
        return jnp.sum(bounds(model, state, claims, duals._replace(tilts=tilts), nudges))

    results, operands = jax.grad(total, (0, 1))(nudges, duals.tilts)
    found = []
    for site in model.sites:
        low, high = state.values[site.slot]
        point, inside = points(model.program, site, state.exact(), low, high)
        s = jnp.clip(operands[site.slot].reshape(low.shape), low, high)
        gains = [
            sum(_gain(model, state, n, results[n], s, Interval(*ends)) for n in site.equations)
            for ends in ((low, point), (point, high))
        ]
        score = jnp.minimum(*gains) + 0.1 * jnp.maximum(*gains)
        found.append([a.reshape(low.shape[0], -1) for a in (point, jnp.where(inside, score, -jnp.inf))])
    return Candidates(*(jnp.concatenate(parts, 1) for parts in zip(*found, strict=True)))


def _result(model: Model, state: State, number: int) -> Array:
    return state.values[model.program.equations[number].outputs[0]].lower


def _gain(model: Model, state: State, number: int, c: Array, s: Array, child: Interval) -> Array:
    """What one equation's planes over a child's interval add to the bound, to first order."""
    equation = model.program.equations[number]
    slot = next(i for i in equation.inputs if i in model.program.perturbed)
    inside = mapped(equation, {**state.values, slot: child}, first_planes)
    return _at(inside, c, s) - _at(state.planes[number], c, s)


def _at(planes: Planes, c: Array, s: Array) -> Array:
    lower, upper = (plane.slopes[0] * s + plane.offset for plane in planes)
    return jnp.where(c > 0, c * lower, c * upper)


def chosen(model: Model, state: State, claims: Claims, splits: Splits, *, num_candidates: int) -> tuple[Array, Array]:
    """(neuron [B], point [B]): the neuron whose worse child is best by one pass."""
    duals = duals_of(splits)
    found = candidates(model, state, claims, duals)
    if num_candidates == 1:
        best = jnp.argmax(found.score, 1)
        return best, _pick(found.point, best)
    twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), claims)
    scores, neurons = jax.lax.top_k(found.score, min(num_candidates, found.score.shape[1]))

    def worth(neuron: Array) -> Array:
        parts = both(split(model, splits, neuron, _pick(found.point, neuron)))
        state = known_within(model, region_of(model, twice), parts.lower, parts.upper)
        low, high = jnp.split(bounds(model, state, twice, duals_of(parts)), 2)
        return jnp.minimum(low, high) + 1e-2 * jnp.maximum(low, high)

    worths = jnp.where(jnp.isfinite(scores), jax.lax.map(worth, neurons.T).T, -jnp.inf)
    best = jnp.take_along_axis(neurons, jnp.argmax(worths, 1)[:, None], 1)[:, 0]
    return best, _pick(found.point, best)


def _pick(values: Array, which: Array) -> Array:
    return jnp.take_along_axis(values, which[:, None], 1)[:, 0]


def split(model: Model, splits: Splits, neuron: Array, point: Array) -> tuple[Splits, Splits]:
    """The part below the point [B] at a neuron [B] (numbered through all sites), and the part above."""
    first = 0
    low, high = splits, splits
    for site in model.sites:
        lower, upper, sides = (field[site.slot] for field in (splits.lower, splits.upper, splits.sides))
        size = lower[0].size
        here = (jnp.arange(first, first + size) == neuron[:, None]).reshape(lower.shape)
        at = point.reshape(-1, *(1,) * (lower.ndim - 1))
        low = _with(low, site.slot, upper=jnp.where(here, at, upper), sides=jnp.where(here, sides | 2, sides))
        high = _with(high, site.slot, lower=jnp.where(here, at, lower), sides=jnp.where(here, sides | 1, sides))
        first += size
    return low, high


def _with(splits: Splits, slot: int, **fields: Array) -> Splits:
    return splits._replace(**{name: {**getattr(splits, name), slot: value} for name, value in fields.items()})


def both(parts: Sequence[Splits]) -> Splits:
    """Low parts, then high parts, as one batch."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
