"""Branch and bound over the intervals of neurons: the method of beta-CROWN, as two compiled functions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.alpha import Ascent, middle
from robustgen.certify.branch.between import ascended_rows
from robustgen.certify.branch.bounding import (
    Duals,
    Model,
    ascended_bounds,
    bounds,
    duals_of,
    first_duals,
    known_within,
    minimisers,
    region_of,
    with_duals,
)
from robustgen.certify.branch.branching import both, chosen, split
from robustgen.certify.branch.domains import Claims, Domains, Round, Splits
from robustgen.certify.branch.sites import points, sites, splittable
from robustgen.certify.state import Region, State, analysed
from robustgen.core import Array, LogitsFn, Threat
from robustgen.knobs import Count, Positive, checked


class Method(NamedTuple):
    """A way to split. All functions are compiled, once for each size of their batch.

    between(claims) -> intervals that hold on the claims' sets, by slot: one set at a time is enough for claims on it.
    root(claims, between) -> Round of one domain each; step(claims, domains, slack) -> Round of two domains each.
    num_sites: how many neurons can be split at all.
    """

    between: Callable
    root: Callable[..., Round]
    step: Callable[..., Round]
    model: Model


@checked
def neurons(
    fn: LogitsFn,
    shape: Sequence[int],
    threat: Threat,
    *,
    between: Ascent,
    first: Ascent,
    each: Ascent,
    tilt_scale: Positive,
    num_candidates: Count,
    lot: Count = 64,
) -> Method:
    """Splits neurons of `fn` [B, *shape] -> [B, K], for sets of the kind of `threat`.

    between: ascent of the intervals between, at the root; first: of each claim's bound there; each: of both children of
    every split, from their parent's duals. tilt_scale: how fast multipliers move against slopes. num_candidates: how
    many splits of each domain are tried before one is taken.
    """
    program = splittable(fn, shape, jnp.zeros(()).dtype)
    model = Model(program, sites(program), threat, tilt_scale)
    if not model.sites:
        raise ValueError("fn: has no neuron that can be split (a ReLU or another element-wise function); split inputs")
    evaluate = _violation(fn)

    def intervals(claims: Claims) -> tuple[dict, dict]:
        state = analysed(program, Region(threat, claims.x, claims.box), ascended_rows(between, lot=lot))
        values = {site.slot: state.values[site.slot] for site in model.sites}
        return {slot: v.lower for slot, v in values.items()}, {slot: v.upper for slot, v in values.items()}

    def finished(claims: Claims, state: State, splits: Splits, best: Array, duals: Duals, known: Array, depth: Array) -> Round:
        x = minimisers(model, state, claims, duals)
        undecided = jnp.sum(_open(model, state), 1)
        empty = jnp.zeros(best.shape, bool)
        for slot, low in splits.lower.items():
            empty = empty | jnp.any(low > splits.upper[slot], tuple(range(1, low.ndim)))
        bound = jnp.where(empty, jnp.inf, jnp.maximum(best, known))
        children = Domains(jnp.zeros(bound.shape, jnp.int32), bound, depth, with_duals(splits, duals))
        return Round(children, x, evaluate(claims, x), undecided)

    def root(claims: Claims, lower: dict, upper: dict) -> Round:
        state = known_within(model, region_of(model, claims), lower, upper)
        start = first_duals(model, state, claims)
        crown = bounds(model, state, claims, start)
        lower, upper = ({slot: state.values[slot][end] for slot in lower} for end in (0, 1))
        sides = {slot: jnp.zeros(low.shape, jnp.int8) for slot, low in lower.items()}
        splits = with_duals(Splits(lower, upper, sides, {}, {}, claims.b), start)
        begin = start._replace(alphas=middle(start.alphas))
        best, duals = ascended_bounds(model, state, claims, splits, begin, first, jnp.zeros_like(crown))
        return finished(claims, state, splits, best, duals, crown, jnp.zeros(crown.shape, jnp.int32))

    def step(claims: Claims, domains: Domains, slack: Array) -> Round:
        parent = domains.parts
        state = known_within(model, region_of(model, claims), parent.lower, parent.upper)
        neuron, point, _ = chosen(model, state, claims, parent, num_candidates=num_candidates)
        splits = both(split(model, parent, neuron, point))
        claims, slack, known, depth = jax.tree.map(
            lambda a: jnp.concatenate([a, a]), (claims, slack, domains.bound, domains.depth + 1)
        )
        state = known_within(model, region_of(model, claims), splits.lower, splits.upper)
        best, duals = ascended_bounds(model, state, claims, splits, duals_of(splits), each, slack)
        return finished(claims, state, splits, best, duals, known, depth)

    return Method(jax.jit(intervals), jax.jit(root), jax.jit(step), model)


def _open(model: Model, state: State) -> Array:
    """Which neurons [B, N] can still be split."""
    found = [points(model.program, site, state.exact(), *state.values[site.slot])[1] for site in model.sites]
    return jnp.concatenate([inside.reshape(inside.shape[0], -1) for inside in found], 1)


def _violation(fn: LogitsFn) -> Callable[[Claims, Array], Array]:
    """The largest row of A fn(x) - b: not positive where x refutes its claim."""

    def violation(claims: Claims, x: Array) -> Array:
        return jnp.max(jnp.einsum("brk,bk->br", claims.A, fn(x), precision="highest") - claims.b, 1)

    return violation
