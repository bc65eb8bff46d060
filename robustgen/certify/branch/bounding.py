"""Lower bounds of claims on parts of their sets: alpha-beta-CROWN (Wang et al. 2021, arXiv 2103.06624), and more.

The paper adds a multiplier for each split. Here any interval l <= s <= u of a slot that holds on the part may have one,
of either sign: for every t, `bound >= min (rows + t s) - max(t l, t u)` (weak duality). At a split relu, where l = 0 or
u = 0, that is the paper's beta, and the same expression serves splits at any point of any function. Besides, a claim of
several rows is bounded by a convex combination of them, whose weights are ascended too.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.affine import is_affine
from robustgen.certify.alpha import Alphas, Ascent, ascended, first_alphas, planes_at
from robustgen.certify.backward import Front, Relation, Sides, backward
from robustgen.certify.branch.domains import Claims, Splits
from robustgen.certify.branch.sites import Site
from robustgen.certify.crown import concretized
from robustgen.certify.interpreter import Program, Slot
from robustgen.certify.planes import Plane, Planes
from robustgen.certify.state import Refine, Region, State, first_planes, interval, mapped
from robustgen.core import Array, Interval, Threat


class Duals(NamedTuple):
    """What is ascended, leaves [B, 1, ...]: alphas and tilts as in `Splits` ([B, 1, 1, *shape]), weights [B, 1, R]."""

    alphas: Alphas
    tilts: Mapping[Slot, Array]
    weights: Array


class Model(NamedTuple):
    """A traced function, the sets it is looked at on, and how fast multipliers move against the slopes."""

    program: Program
    sites: tuple[Site, ...]
    threat: Threat
    tilt_scale: float


def region_of(model: Model, claims: Claims) -> Region:
    """The sets of claims."""
    return Region(model.threat, claims.x, claims.box)


def known_within(
    model: Model, at: Region, lower: Mapping[Slot, Array], upper: Mapping[Slot, Array], refine: Refine | None = None
) -> State:
    """All intervals and planes where some slots are within given intervals, tightened by `refine` where that helps."""
    program = model.program
    state = State({**program.constants, program.input: at.box}, {}, {program.input}, set())
    if program.input in lower:
        state.values[program.input] = Interval(lower[program.input], upper[program.input])
    for number, equation in enumerate(program.equations):
        if not program.perturbed.intersection(equation.inputs):
            results = equation.apply(*(state.values[slot] for slot in equation.inputs))
            state.values.update(zip(equation.outputs, results, strict=True))
            continue
        results = mapped(equation, state.values, interval)
        state.values.update(zip(equation.outputs, results if isinstance(results, list) else [results], strict=True))
        for slot in equation.outputs:
            if slot in lower:
                state.values[slot] = _both(state.values[slot], Interval(lower[slot], upper[slot]))
                if refine is not None:
                    state.values[slot] = _both(state.values[slot], refine(program, state, slot, at))
        if not is_affine(equation, program):
            state.planes[number] = mapped(equation, state.values, first_planes)
    return state


def _both(a: Interval, b: Interval) -> Interval:
    return Interval(jnp.maximum(a.lower, b.lower), jnp.minimum(a.upper, b.upper))


def duals_of(splits: Splits) -> Duals:
    """The stored duals, with the axes that `bounds` wants."""
    widened = jax.tree.map(lambda a: a[:, None, None], (splits.alphas, splits.tilts))
    return Duals(*widened, splits.weights[:, None])


def with_duals(splits: Splits, duals: Duals) -> Splits:
    """The same parts with other duals."""
    alphas, tilts = jax.tree.map(lambda a: a[:, 0, 0], (duals.alphas, duals.tilts))
    return splits._replace(alphas=alphas, tilts=tilts, weights=duals.weights[:, 0])


def first_duals(model: Model, state: State, claims: Claims) -> Duals:
    """CROWN's own slopes, no multipliers, equal weights."""
    alphas = first_alphas(model.program, state, 1)
    alphas = jax.tree.map(lambda a: a.astype(claims.x.dtype), alphas)
    shapes = {site.slot: state.values[site.slot].lower.shape for site in model.sites}
    tilts = {slot: jnp.zeros((shape[0], 1, 1, *shape[1:]), claims.x.dtype) for slot, shape in shapes.items()}
    return Duals(alphas, tilts, jnp.zeros_like(claims.b)[:, None])


def bounds(
    model: Model, state: State, claims: Claims, duals: Duals, nudges: Mapping[int, Array] | None = None
) -> Array:
    """The lower bounds [B] that duals give. nudges, by equation, are added to the offsets of both planes: the gradient
    at nudges of zero is the coefficient of the equation's result."""
    linear = relations(model, state, claims, duals, nudges)
    return concretized(linear, model.program, region_of(model, claims))[:, 0, 0] - _supports(state, duals.tilts)


def relations(
    model: Model, state: State, claims: Claims, duals: Duals, nudges: Mapping[int, Array] | None = None
) -> Relation:
    """The claims' rows as linear functions of the input [B, 1, 1, ...], without what the multipliers take off."""
    program, exact = model.program, state.exact()
    planes = {**state.planes, **{n: planes_at(program, state, n, duals.alphas[n]) for n in duals.alphas}}
    planes = {n: _nudged(p, (nudges or {}).get(n)) for n, p in planes.items()}
    weights = jax.nn.softmax(duals.weights[:, 0])
    # a coefficient of zero at every site makes sure that each multiplier's slot is reached, as its soundness asks for
    start = {site.slot: jnp.zeros((1, 1, *program.shapes[site.slot].shape), claims.x.dtype) for site in model.sites}

    def one(row: Array, offset: Array, p: Mapping[int, Planes], tilts: Mapping[Slot, Array]) -> Relation:
        begin = {**start, program.output: row.reshape(1, 1, *program.shapes[program.output].shape)}
        sides = {slot: Sides(tilt=tilt) for slot, tilt in tilts.items()}
        return backward(program, Front(begin, offset.reshape(1, 1)), p, exact, sides, mirrored=False)

    rows = jnp.einsum("br,brk->bk", weights, claims.A, precision="highest")
    return jax.vmap(one)(rows, -jnp.sum(weights * claims.b, 1), planes, duals.tilts)


def _nudged(planes: Planes, nudge: Array | None) -> Planes:
    if nudge is None:
        return planes
    shift = nudge.reshape(nudge.shape[0], *(1,) * (planes.lower.offset.ndim - nudge.ndim), *nudge.shape[1:])
    return Planes(*(Plane(plane.slopes, plane.offset + shift) for plane in planes))


def _supports(state: State, tilts: Mapping[Slot, Array]) -> Array:
    """What the multipliers cost: max t s over the intervals, summed."""
    total = 0.0
    for slot, tilt in tilts.items():
        low, high = (end.reshape(tilt.shape) for end in state.values[slot])
        cost = jnp.where(tilt > 0, tilt * jnp.where(tilt > 0, high, 0), tilt * jnp.where(tilt < 0, low, 0))
        total = total + jnp.sum(cost, tuple(range(1, cost.ndim)))
    return total


def ascended_bounds(
    model: Model, state: State, claims: Claims, splits: Splits, start: Duals, steps: Ascent, enough: Array
) -> tuple[Array, Duals]:
    """The best bounds [B] found from `start`, less `enough` [B] in deciding when to stop, and what gave them.

    Only the intervals that a split gave have multipliers, of the sign that can pay: more would be sound, and noise.
    """
    scaled = start._replace(tilts=jax.tree.map(lambda t: t / model.tilt_scale, start.tilts))

    def back(duals: Duals) -> Duals:
        return duals._replace(tilts=jax.tree.map(lambda t: t * model.tilt_scale, duals.tilts))

    def project(duals: Duals) -> Duals:
        tilts = {slot: _allowed(tilt, splits.sides[slot]) for slot, tilt in duals.tilts.items()}
        return Duals(jax.tree.map(lambda a: jnp.clip(a, 0.0, 1.0), duals.alphas), tilts, duals.weights)

    def bound(duals: Duals) -> Array:
        return (bounds(model, state, claims, back(duals)) - enough)[:, None]

    best, duals = ascended(
        bound, project(scaled), project, steps._replace(enough=0.0), jnp.full((*enough.shape, 1), -jnp.inf)
    )
    return best[:, 0] + enough, back(duals)


def _allowed(tilt: Array, sides: Array) -> Array:
    sides = sides.reshape(tilt.shape)
    return jnp.clip(tilt, jnp.where(sides & 1 > 0, -jnp.inf, 0.0), jnp.where(sides & 2 > 0, jnp.inf, 0.0))


def minimisers(model: Model, state: State, claims: Claims, duals: Duals) -> Array:
    """The members [B, *shape] of the sets where the linear bounds are least."""
    at = region_of(model, claims)
    coefficients, offset = relations(model, state, claims, duals)
    if coefficients is None:
        return claims.x
    whole = coefficients[:, 0, 0]
    if model.threat.is_box:
        return jnp.where(whole > 0, claims.lower, jnp.where(whole < 0, claims.upper, claims.x))
    least = jax.grad(lambda c: jnp.sum(concretized(Relation(c, offset), model.program, at)))(coefficients)
    return least[:, 0, 0]
