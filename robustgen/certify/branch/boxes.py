"""Branch and bound over parts of the input's box, for functions of few inputs or without neurons to split."""

import math

import jax
import jax.numpy as jnp

from robustgen.certify.alpha import Ascent, middle
from robustgen.certify.branch.bounding import (
    Duals,
    Model,
    ascended_bounds,
    bounds,
    first_duals,
    minimisers,
    region_of,
    relations,
)
from robustgen.certify.branch.domains import Claims, Domains, Round, Splits
from robustgen.certify.branch.method import Method, magnitude, violation
from robustgen.certify.branch.sites import splittable
from robustgen.certify.crown import unstable
from robustgen.certify.state import Refine, State, analysed
from robustgen.core import Array, Interval, LogitsFn, Threat
from robustgen.knobs import checked


@checked
def halves(threat: Threat, *, each: Ascent, refine: Refine | None = None) -> Method:
    """Halves boxes of the input along the axis that the linear bound of the parent depends on most.

    That is |coefficient| times width, as in the input splits of alpha-beta-CROWN ("sb"), whose extra terms for the
    relaxation are left out. Intervals between are those of `refine` (default: `unstable`) on each half; `each`: ascent
    of the slopes. Threats must be boxes. It ends even for functions whose relaxations stay loose, but not always
    within any time.
    """
    if not threat.is_box:
        raise ValueError("threat: only boxes can be halved; split neurons, or take a box around the set")

    def bounded(fn: LogitsFn, claims: Claims, known: Array, depth: Array) -> Round:
        model = Model(splittable(fn, claims.x.shape[1:], claims.x.dtype), (), threat, 1.0)
        state = analysed(model.program, region_of(model, claims), refine or unstable())
        start = first_duals(model, state, claims)
        crown = bounds(model, state, claims, start)
        begin = start._replace(alphas=middle(start.alphas))
        none = Splits({}, {}, {}, {}, {}, claims.b)
        best, duals = ascended_bounds(model, state, claims, none, begin, each, jnp.zeros_like(crown))
        bound = jnp.maximum(jnp.maximum(best, crown), known)
        x = minimisers(model, state, claims, duals)
        parts = (claims.lower, claims.upper, _reach(model, state, claims, duals))
        children = Domains(jnp.zeros(bound.shape, jnp.int32), bound, depth, parts)
        wide = jnp.sum(claims.upper - claims.lower > _least_width(claims), tuple(range(1, claims.x.ndim)))
        return Round(children, x, violation(fn, claims, x), wide, magnitude(model, state))

    def between(fn: LogitsFn, claims: Claims) -> tuple[dict, dict]:
        return {}, {}

    def root(fn: LogitsFn, claims: Claims, lower: dict, upper: dict) -> Round:
        return bounded(fn, claims, jnp.full(claims.x.shape[:1], -jnp.inf), jnp.zeros(claims.x.shape[:1], jnp.int32))

    def step(fn: LogitsFn, claims: Claims, domains: Domains, slack: Array) -> Round:
        lower, upper, reach = domains.parts
        low, high = _halved(lower, upper, reach)
        both = [jnp.concatenate(ends) for ends in zip(low, high, strict=True)]
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), (claims, domains.bound, domains.depth + 1))
        claims = twice[0]._replace(lower=both[0], upper=both[1], x=(both[0] + both[1]) / 2)
        return bounded(fn, claims, *twice[1:])

    return Method(jax.jit(between), jax.jit(root), jax.jit(step))


def _reach(model: Model, state: State, claims: Claims, duals: Duals) -> Array:
    """How far the bound moves along each axis: |coefficient|, floored so that every axis is halved in the end."""
    coefficients = relations(model, state, claims, duals).coefficients
    if coefficients is None:
        return jnp.ones_like(claims.x)
    reach = jnp.abs(coefficients[:, 0, 0])
    axes = tuple(range(1, reach.ndim))
    return reach + 1e-2 * jnp.max(reach, axes, keepdims=True) + 1e-20


def _halved(lower: Array, upper: Array, reach: Array) -> tuple[Interval, Interval]:
    flat = (reach * (upper - lower)).reshape(reach.shape[0], math.prod(reach.shape[1:]))
    axis = jnp.argmax(flat, 1)
    here = (jnp.arange(flat.shape[1]) == axis[:, None]).reshape(reach.shape)
    middle = (lower + upper) / 2
    return Interval(lower, jnp.where(here, middle, upper)), Interval(jnp.where(here, middle, lower), upper)


def _least_width(claims: Claims) -> Array:
    """Below this a box is as good as a point."""
    return 4 * jnp.finfo(claims.x.dtype).eps * (jnp.abs(claims.lower) + jnp.abs(claims.upper)) + 1e-30
