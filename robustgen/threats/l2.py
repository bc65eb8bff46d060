"""The Euclidean ball within a box."""

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key, Threat
from robustgen.knobs import NonNegative, checked
from robustgen.threats.geometry import (
    Clip,
    ball_bounds,
    box_support,
    clipped,
    inner_axes,
    limits,
    norm_slack,
    per_example,
    round_down,
    unit,
)


@checked
def l2(eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Threat:
    """{x': ||x' - x||_2 <= eps, clip[0] <= x' <= clip[1]}, the norm over all but the first axis.

    `project` is the exact Euclidean projection onto the intersection of ball and box. `support` is exact without
    `clip`; with it, the smaller of the ball's and the box's (an upper bound).
    """
    bounds = ball_bounds(eps, clip)

    def project(x: Array, x_adv: Array) -> Array:
        low, high = limits(x, clip)
        wanted = x_adv - x
        shift = _cap_norm(wanted, low - x, high - x, round_down(eps, x.dtype) * norm_slack(x))
        moved = clipped(x + shift, clip)
        inward = jnp.where(moved == x, x, jnp.nextafter(moved, x))  # the sum rounds outward by less than this
        return jnp.where(shift == wanted, clipped(x_adv, clip), inward)

    def sample(x: Array, keys: Key) -> Array:
        direction = jax.vmap(lambda key, row: jax.random.normal(key, row.shape, row.dtype))(keys, x)
        size = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (), x.dtype))(keys)
        radii = round_down(eps, x.dtype) * size ** (1.0 / x[0].size)  # uniform in the ball
        return project(x, x + unit(direction) * per_example(radii, x))

    def support(A: Array, x: Array) -> Array:
        axes = inner_axes(A, x)
        ball = jnp.sum(A * x, axes) + round_down(eps, x.dtype) * jnp.sqrt(jnp.sum(A * A, axes))
        return ball if clip is None else jnp.minimum(ball, box_support(A, *bounds(x)))

    return Threat(sample, project, lambda g, step: step * unit(g), bounds, support)


def _cap_norm(shift: Array, low: Array, high: Array, radius: Array) -> Array:
    """clip(t * shift, low, high) with the largest t <= 1 whose norm is within `radius`, per example.

    That is the projection of x + shift onto ball and box, for low <= 0 <= high. The squared norm is piecewise quadratic
    in t; solving for t with the coordinates clipped so far, and again with those clipped at that t, climbs to the root
    from below and stays when no further coordinate clips.
    """
    axes = tuple(range(1, shift.ndim))

    def climb(carry):
        t, _ = carry
        moved = per_example(t, shift) * shift
        at_limit = (moved < low) | (moved > high)
        fixed = jnp.sum(jnp.where(at_limit, jnp.clip(moved, low, high), 0.0) ** 2, axes)
        free = jnp.sum(jnp.where(at_limit, 0.0, shift) ** 2, axes)
        root = jnp.sqrt(jnp.maximum(radius**2 - fixed, 0.0) / jnp.maximum(free, jnp.finfo(shift.dtype).tiny))
        return jnp.clip(root, t, 1.0), t

    def moving(carry):
        t, previous = carry
        return jnp.any(t > previous)

    start = jnp.zeros(shift.shape[0], shift.dtype)
    t, _ = jax.lax.while_loop(moving, climb, climb((start, start)))
    return jnp.clip(per_example(t, shift) * shift, low, high)
