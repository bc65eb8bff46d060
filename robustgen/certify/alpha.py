"""alpha-CROWN (Xu et al. 2021, arXiv 2011.13824): the slopes that relaxations leave open, found by gradient ascent.

Every value of the slopes gives a sound bound, so the best one seen is kept, and nothing needs to converge.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from robustgen.certify.backward import Front, Relation, Sides, backward, front
from robustgen.certify.crown import concretized, differences, unstable, with_zero
from robustgen.certify.interpreter import Program, Slot
from robustgen.certify.planes import Planes
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.state import Refine, State, analysed, mapped, program_of, region
from robustgen.core import Array, LogitsFn, PyTree, Threat
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


def first_alphas(program: Program, state: State, rows: int) -> Alphas:
    """CROWN's own alphas, once for each of `rows` rows."""
    alphas = {}
    for number in state.planes:
        equation = program.equations[number]
        if equation.name in RELAXATIONS:
            starts = mapped(equation, state.values, lambda e, *o: RELAXATIONS[e.name](e, *o).start)
            if any(start is not None for start in starts):
                alphas[number] = jax.tree.map(lambda s: jnp.repeat(s[:, None, None], rows, 1), starts)
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
    bound: Callable[[PyTree], Array], start: PyTree, project: Callable[[PyTree], PyTree], steps: Ascent, known: Array
) -> tuple[Array, PyTree]:
    """The best bounds [B, P] seen while their sum is ascended from `start`, and for each row what gave its best.

    Leaves of `start` are [B, P, ...], and row (b, p) of the bound depends on them at (b, p) alone. `known` [B, P] are
    bounds had otherwise: never less is returned (their rows' parameters are then those of the best step made here).
    """
    optimizer = optax.adam(optax.exponential_decay(-steps.learning_rate, 1, steps.decay))

    def value(params: PyTree) -> tuple[Array, Array]:
        rows = bound(params)
        return jnp.sum(rows), rows

    def better(best, rows, params):
        wins = rows > best[0]
        kept = jax.tree.map(lambda new, old: jnp.where(_over(wins, new), new, old), params, best[1])
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
    first = (jnp.zeros((), int), start, optimizer.init(start), (nothing, start))
    _, params, _, best = jax.lax.while_loop(goes_on, step, first)
    best = better(best, bound(params), params)
    return reached(best), best[1]


def _over(rows: Array, leaf: Array) -> Array:
    return rows.reshape(*rows.shape, *(1,) * (leaf.ndim - rows.ndim))
