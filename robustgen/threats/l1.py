"""The L1 ball within a box: few features may change much, or many a little."""

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key, Threat
from robustgen.knobs import NonNegative, checked
from robustgen.threats.geometry import (
    Clip,
    ball_bounds,
    clipped,
    inner_axes,
    limits,
    norm_slack,
    per_example,
    round_down,
)
from robustgen.threats.selection import crossing


@checked
def l1(eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Threat:
    """{x': ||x' - x||_1 <= eps, clip[0] <= x' <= clip[1]}, the norm over all but the first axis.

    `project` is the exact Euclidean projection onto the intersection, Croce & Hein 2021 (arXiv 2103.01208), Proposition
    2.1; projecting on ball and box in turn is not. The official code sorts the kinks of the dual; here its root is
    found without a sort. `ascend` moves the feature of the largest gradient alone (all of them, equally, where several
    tie): the steepest ascent under an L1 step. Attacks that want wider steps (the top-k of APGD-L1) take their own.
    `support` is exact, with `clip` too: the most rewarding features are moved to their limits until eps is spent.
    """

    def radius(x: Array) -> Array:
        return round_down(eps, x.dtype) * norm_slack(x)

    def project(x: Array, x_adv: Array) -> Array:
        low, high = limits(x, clip)
        wanted = x_adv - x
        room = jnp.where(wanted > 0, high - x, x - low)
        size, at_limit, fits = _shrink(jnp.abs(wanted), room, radius(x))
        moved = clipped(x + jnp.sign(wanted) * size, clip)
        inward = jnp.where(moved == x, x, jnp.nextafter(moved, x))  # the sum rounds outward by less than this
        return jnp.where(per_example(fits, x) | at_limit, clipped(x_adv, clip), inward)

    def sample(x: Array, keys: Key) -> Array:
        draw = jax.vmap(lambda key, row: jax.random.laplace(key, row.shape, row.dtype))(keys, x)
        rest = jax.vmap(lambda key: jax.random.exponential(jax.random.fold_in(key, 1), (), x.dtype))(keys)
        total = jnp.sum(jnp.abs(draw), tuple(range(1, x.ndim))) + rest  # uniform in the ball
        return project(x, x + draw * per_example(round_down(eps, x.dtype) / total, x))

    def support(A: Array, x: Array) -> Array:
        centre, reward, axes = jnp.sum(A * x, inner_axes(A, x)), jnp.abs(A), inner_axes(A, x)
        if clip is None:
            return centre + round_down(eps, x.dtype) * jnp.max(reward, axes)
        low, high = limits(x, clip)
        return centre + _best_spending(reward, jnp.where(A > 0, high - x, x - low), round_down(eps, x.dtype), axes)

    return Threat(sample, project, _steepest, ball_bounds(eps, clip), support)


def _steepest(gradient: Array, step: Array) -> Array:
    axes = tuple(range(1, gradient.ndim))
    size = jnp.abs(gradient)
    steepest = size == jnp.max(size, axes, keepdims=True)
    return step * jnp.sign(gradient) * steepest / jnp.maximum(jnp.sum(steepest, axes, keepdims=True), 1)


def _shrink(size: Array, room: Array, radius: Array) -> tuple[Array, Array, Array]:
    """clip(size - level, 0, room) with the least level >= 0 whose sum is within `radius`; which features end at their
    limit; and [B] whether level 0 does.

    The sum falls piecewise linearly with the level. Between two neighbouring levels in float32 lies no kink, so that
    the rest is interpolated: exact however coarse the level, as for requests 10^6 radii away.
    """
    axes = tuple(range(1, size.ndim))

    def left(level: Array) -> Array:
        return jnp.clip(size - per_example(level, size), 0.0, room)

    def total_at(level: Array) -> tuple[Array, Array]:
        kept = left(level)
        return jnp.sum(kept, axes), jnp.sum((kept > 0) & (kept < room), axes).astype(size.dtype)

    tolerance = radius * (1.0 - norm_slack(size))
    lower, upper = crossing(total_at, jnp.max(size, axes), radius, tolerance)
    more, less = left(lower), left(upper)
    total, spare = jnp.sum(less, axes), jnp.sum(more - less, axes)
    share = jnp.clip((radius - tolerance / 2 - total) / jnp.maximum(spare, jnp.finfo(size.dtype).tiny), 0.0, 1.0)
    share = jnp.where(total >= radius - tolerance, 0.0, share)  # met: what is below the level stays exactly where it is
    return less + per_example(share, size) * (more - less), less >= room, upper == 0


def _best_spending(reward: Array, room: Array, budget: Array, axes: tuple[int, ...]) -> Array:
    """max sum(reward * spent) over 0 <= spent <= room with sum(spent) <= budget, sums over `axes`.

    A fractional knapsack: all room where the reward is above a level, and what is left of the budget at the level. The
    level is found without derivatives, and with it fixed the rest has the right ones: what is spent is d/d reward.
    """

    levels = _knapsack_levels(*jax.lax.stop_gradient((reward, room, jnp.asarray(budget))), axes)
    lower, upper = (per_example(level, reward) for level in levels)
    full, partial = (jnp.where(chosen, room, 0.0) for chosen in (reward > upper, (reward > lower) & (reward <= upper)))
    spare = jnp.maximum(budget - jnp.sum(full, axes), 0.0)
    share = spare / jnp.maximum(jnp.sum(partial, axes), jnp.finfo(reward.dtype).tiny)
    return jnp.sum(reward * (full + per_example(jnp.minimum(share, 1.0), reward) * partial), axes)


def _knapsack_levels(reward: Array, room: Array, budget: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Neighbouring levels (lower, upper): the room above the upper is within the budget, above the lower it is not."""

    def total_at(level: Array) -> tuple[Array, Array]:
        total = jnp.sum(jnp.where(reward > per_example(level, reward), room, 0.0), axes)
        return total, jnp.zeros_like(level)

    return crossing(total_at, jnp.max(reward, axes), budget, jnp.zeros_like(budget))
