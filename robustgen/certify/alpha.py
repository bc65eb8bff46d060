"""alpha-CROWN (Xu et al. 2021, arXiv 2011.13824): the slopes that relaxations leave open, found by gradient ascent.

Every value of the slopes gives a sound bound, so the best one seen is kept, and nothing needs to converge.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from robustgen.certify.backward import Front, Relation, Sides, backward, front
from robustgen.certify.crown import concretized, differences, every, unstable, with_zero
from robustgen.certify.interpreter import Program, Slot
from robustgen.certify.planes import Planes
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.state import Refine, Region, State, analysed, mapped, program_of, region
from robustgen.core import Array, Interval, LogitsFn, PyTree, Threat
from robustgen.knobs import Count, Positive, checked

Alphas = Mapping[int, tuple[Array | None, Array | None]]
"""By number of equation: the alphas of its lower and its upper plane, [B, P, 1, *shape]; None where there are none."""


class Ascent(NamedTuple):
    """Adam's ascent of bounds. auto_LiRPA's: 20 steps, rate 0.5, times 0.98 a step.

    enough: once every row of the batch is above it, no further step is made; infinity makes all steps.
    """

    num_steps: int
    learning_rate: float
    decay: float
    enough: float = jnp.inf


@checked
def ascent(*, num_steps: Count, learning_rate: Positive, decay: Positive, enough: float = jnp.inf) -> Ascent:
    """An `Ascent` of checked knobs."""
    return Ascent(num_steps, learning_rate, decay, enough)


def alpha_margins(
    logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, *, steps: Ascent, refine: Refine | None = None
) -> Array:
    """Lower bounds [B, K] of logit_y - logit_k over the sets around x; exactly 0 at k = y.

    The bounds of the values between are those of CROWN (`refine`, as in `crown_margins`) and stay fixed; the slopes of
    each specification are its own. Never below `crown_margins` with the same `refine`.
    """
    program, at = program_of(logits_fn, x), region(threat, x)
    state = analysed(program, at, refine or unstable())
    classes = program.shapes[program.output].shape[0]
    start = jax.vmap(lambda label: front({program.output: differences(label, classes)}))(y)
    alphas = first_alphas(program, state, start.offset.shape[1])

    def bound(a: Alphas) -> Array:
        return concretized(relation(program, state, start, a), program, at)[..., 0]

    best, _ = ascended(bound, middle(alphas), clipped, steps, bound(alphas))
    return with_zero(best, y)


def joint_alpha_margins(
    logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, *, steps: Ascent, refine: Refine | None = None
) -> Array:
    """The same, with the bounds of the values between found anew in every step, their own slopes ascended as well.

    Each layer whose bounds are refined has slopes for all its rows together, as many times the cost of `alpha_margins`
    as these layers have rows; the bounds between never get worse than those of `refine`, which are the start.
    """
    program, at = program_of(logits_fn, x), region(threat, x)
    between: dict[Slot, Alphas] = {}
    inner = refine or unstable()

    def noting(program: Program, state: State, slot: Slot, at: Region) -> Interval:
        found = own_alphas(program, state)
        between[slot] = {number: found[number] for number in found}
        return inner(program, state, slot, at)

    fixed = analysed(program, at, noting)
    classes = program.shapes[program.output].shape[0]
    start = jax.vmap(lambda label: front({program.output: differences(label, classes)}))(y)
    rows = first_alphas(program, fixed, start.offset.shape[1])

    def bound(alphas: tuple[Alphas, Mapping[Slot, Alphas]]) -> Array:
        state = analysed(program, at, _again(fixed, alphas[1]))
        return concretized(relation(program, state, start, alphas[0]), program, at)[..., 0]

    known = concretized(relation(program, fixed, start, rows), program, at)[..., 0]
    best, _ = ascended(bound, middle((rows, between)), clipped, steps, known, lambda alphas: alphas[0])
    return with_zero(best, y)


def _again(fixed: State, between: Mapping[Slot, Alphas]) -> Refine:
    """All rows of a slot under its own alphas, where they better the fixed bounds."""

    def refine(program: Program, state: State, slot: Slot, at: Region) -> Interval:
        planes = {number: planes_at(program, state, number, mine) for number, mine in between[slot].items()}
        found = every()(program, state._replace(planes={**state.planes, **planes}), slot, at)
        lower, upper = fixed.values[slot]
        # where the fixed bound wins the slopes are still drawn on, or they would never come to better it
        return Interval(
            found.lower + jax.lax.stop_gradient(jnp.maximum(lower - found.lower, 0.0)),
            found.upper - jax.lax.stop_gradient(jnp.maximum(found.upper - upper, 0.0)),
        )

    return refine


def first_alphas(program: Program, state: State, rows: int) -> Alphas:
    """CROWN's own alphas, once for each of `rows` rows."""
    return jax.tree.map(lambda a: jnp.repeat(a[:, None, None], rows, 1), own_alphas(program, state))


def own_alphas(program: Program, state: State) -> Alphas:
    """CROWN's own alphas, [B, *shape], of the equations analysed so far that have any."""
    alphas = {}
    for number in state.planes:
        equation = program.equations[number]
        if equation.name in RELAXATIONS:
            starts = mapped(equation, state.values, lambda e, *o: RELAXATIONS[e.name](e, *o).start)
            if any(start is not None for start in starts):
                alphas[number] = starts
    return alphas


def middle(alphas: Alphas) -> Alphas:
    """1/2 everywhere, to ascend from: at the ends 0 and 1, where CROWN's own are, many gradients lead outwards."""
    return jax.tree.map(lambda a: jnp.full_like(a, 0.5), alphas)


def relation(
    program: Program, state: State, start: Front, alphas: Alphas, sides: Mapping[Slot, Sides] | None = None
) -> Relation:
    """The rows of `start` [B, P, O, ...] as linear functions of the input, under the given alphas."""
    exact = state.exact()
    sides = dict(sides or {})
    for slot, slack in (state.slack or {}).items():
        sides[slot] = sides.get(slot, Sides())._replace(slack=slack)
    planes = {**state.planes, **{number: planes_at(program, state, number, alphas[number]) for number in alphas}}

    def one(rows: Front, p: Mapping[int, Planes], s: Mapping[Slot, Sides] | None) -> Relation:
        return backward(program, rows, p, exact, s, mirrored=False)

    return jax.vmap(one)(start, planes, sides)


def planes_at(program: Program, state: State, number: int, alphas: tuple[Array | None, Array | None]) -> Planes:
    """The planes [B, P, 1, ...] of one equation under alphas [B, P, 1, *shape]."""
    equation = program.equations[number]
    known = {slot: state.values[slot] for slot in equation.inputs}
    axes = {slot: 0 if slot in program.perturbed else None for slot in known}

    def one(values, mine) -> Planes:
        return RELAXATIONS[equation.name](equation, *(values[slot] for slot in equation.inputs)).planes(*mine)

    return jax.vmap(one, in_axes=(axes, 0))(known, alphas)


def clipped(alphas: Alphas) -> Alphas:
    """Alphas brought back into [0, 1]."""
    return jax.tree.map(lambda a: jnp.clip(a, 0.0, 1.0), alphas)


def ascended(
    bound: Callable[[PyTree], Array],
    start: PyTree,
    project: Callable[[PyTree], PyTree],
    steps: Ascent,
    known: Array,
    keep: Callable[[PyTree], PyTree] = lambda params: params,
) -> tuple[Array, PyTree]:
    """The best bounds [B, P] seen while their sum is ascended from `start`, and for each row what gave its best.

    Row (b, p) of the bound depends on leaves [B, P, ...] of `start` at (b, p) alone; `keep` selects these where there
    are others. `known` [B, P] are bounds had otherwise: never less is returned (their rows' parameters are then those
    of the best step made here).
    """
    optimizer = optax.adam(optax.exponential_decay(-steps.learning_rate, 1, steps.decay))

    def value(params: PyTree) -> tuple[Array, Array]:
        rows = bound(params)
        return jnp.sum(rows), rows

    def better(best, rows, params):
        wins = rows > best[0]
        kept = jax.tree.map(lambda new, old: jnp.where(_over(wins, new), new, old), keep(params), best[1])
        return jnp.where(wins, rows, best[0]), kept

    def reached(best) -> Array:
        return jnp.maximum(best[0], known)

    def step(carry):
        i, params, moments, best = carry
        (_, rows), gradient = jax.value_and_grad(value, has_aux=True)(params)
        best = better(best, rows, params)
        updates, moments = optimizer.update(gradient, moments)
        return i + 1, project(optax.apply_updates(params, updates)), moments, best

    def goes_on(carry) -> Array:
        return (carry[0] < steps.num_steps) & jnp.any(reached(carry[3]) <= steps.enough)

    nothing = jnp.full_like(known, -jnp.inf)
    first = (jnp.zeros((), int), start, optimizer.init(start), (nothing, keep(start)))
    _, params, _, best = jax.lax.while_loop(goes_on, step, first)
    best = better(best, bound(params), params)
    return reached(best), best[1]


def _over(rows: Array, leaf: Array) -> Array:
    return rows.reshape(*rows.shape, *(1,) * (leaf.ndim - rows.ndim))
