"""Branch and bound over the intervals of neurons: the method of beta-CROWN, as two compiled functions."""

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
from robustgen.certify.branch.method import Method, magnitude, violation
from robustgen.certify.branch.sites import points, sites, splittable
from robustgen.certify.state import State, analysed
from robustgen.core import Array, LogitsFn, Threat
from robustgen.knobs import Count, Positive, checked


@checked
def neurons(
    threat: Threat,
    *,
    between: Ascent,
    first: Ascent,
    each: Ascent,
    tilt_scale: Positive,
    num_candidates: Count,
    lot: Count = 64,
) -> Method:
    """Splits neurons of any function, for sets of the kind of `threat`; complete for piecewise linear ones over boxes.

    between: ascent of the intervals between, at the root; first: of each claim's bound there; each: of both children of
    every split, from their parent's duals. tilt_scale: how fast multipliers move against slopes. num_candidates: how
    many splits of each domain are tried before one is taken.
    """

    def model_of(fn: LogitsFn, claims: Claims) -> Model:
        program = splittable(fn, claims.x.shape[1:], claims.x.dtype)
        return Model(program, sites(program), threat, tilt_scale)

    def intervals(fn: LogitsFn, claims: Claims) -> tuple[dict, dict]:
        model = model_of(fn, claims)
        state = analysed(model.program, region_of(model, claims), ascended_rows(between, lot=lot))
        values = {site.slot: state.values[site.slot] for site in model.sites}
        return {slot: v.lower for slot, v in values.items()}, {slot: v.upper for slot, v in values.items()}

    def root(fn: LogitsFn, claims: Claims, lower: dict, upper: dict) -> Round:
        model = model_of(fn, claims)
        state = known_within(model, region_of(model, claims), lower, upper)
        start = first_duals(model, state, claims)
        crown = bounds(model, state, claims, start)
        lower, upper = ({slot: state.values[slot][end] for slot in lower} for end in (0, 1))
        sides = {slot: jnp.zeros(low.shape, jnp.int8) for slot, low in lower.items()}
        splits = with_duals(Splits(lower, upper, sides, {}, {}, claims.b), start)
        begin = start._replace(alphas=middle(start.alphas))
        best, duals = ascended_bounds(model, state, claims, splits, begin, first, jnp.zeros_like(crown))
        known = Domains(jnp.zeros(crown.shape, jnp.int32), crown, jnp.zeros(crown.shape, jnp.int32), splits)
        return _round(fn, model, state, claims, known, best, duals)

    def step(fn: LogitsFn, claims: Claims, domains: Domains, slack: Array) -> Round:
        model, parent = model_of(fn, claims), domains.parts
        state = known_within(model, region_of(model, claims), parent.lower, parent.upper)
        neuron, point = chosen(model, state, claims, parent, num_candidates=num_candidates)
        claims, slack, known = jax.tree.map(lambda a: jnp.concatenate([a, a]), (claims, slack, domains))
        known = known._replace(depth=known.depth + 1, parts=both(split(model, parent, neuron, point)))
        state = known_within(model, region_of(model, claims), known.parts.lower, known.parts.upper)
        best, duals = ascended_bounds(model, state, claims, known.parts, duals_of(known.parts), each, slack)
        return _round(fn, model, state, claims, known, best, duals)

    return Method(jax.jit(intervals), jax.jit(root), jax.jit(step))


def _round(fn, model: Model, state: State, claims: Claims, known: Domains, best: Array, duals: Duals) -> Round:
    """What there is to say of parts after their bounds `best` [N] were found; `known` has those of before."""
    x = minimisers(model, state, claims, duals)
    inside = [points(model.program, site, state.exact(), *state.values[site.slot])[1] for site in model.sites]
    undecided = sum(jnp.sum(open, tuple(range(1, open.ndim))) for open in inside)
    empty = jnp.zeros(best.shape, bool)
    for slot, low in known.parts.lower.items():
        empty = empty | jnp.any(low > known.parts.upper[slot], tuple(range(1, low.ndim)))
    bound = jnp.where(empty, jnp.inf, jnp.maximum(best, known.bound))
    children = known._replace(bound=bound, parts=with_duals(known.parts, duals))
    return Round(children, x, violation(fn, claims, x), undecided, magnitude(model, state))
