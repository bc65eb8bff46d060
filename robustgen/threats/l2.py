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
    total,
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
        wanted = x_adv - x
        shift = _cap_norm(wanted, x, clip, round_down(eps, x.dtype) * norm_slack(x))
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


def _cap_norm(shift: Array, x: Array, clip: Clip | None, radius: Array) -> Array:
    """t * shift, clipped so that x + t * shift is in the box, with the largest t <= 1 that leaves the norm within
    `radius`, per example; all [B, ...].

    That is the projection of x + shift onto ball and box, for x in the box. The squared norm is piecewise quadratic in
    t; solving for t with the coordinates clipped so far, and again with those clipped at that t, climbs to the root
    from below and stays when no further coordinate clips.
    """
    flat, origin = shift.reshape(shift.shape[0], -1), x.reshape(x.shape[0], -1)
    tiny = jnp.finfo(shift.dtype).tiny

    def root(fixed: Array | float, free: Array) -> Array:
        return jnp.sqrt(jnp.maximum(radius**2 - fixed, 0.0) / jnp.maximum(free, tiny))

    def climb(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        t, _ = carry
        low, high = (limit - origin for limit in limits(origin, clip))
        moved = t[:, None] * flat
        at_limit = (moved < low) | (moved > high)
        fixed = total(jnp.where(at_limit, jnp.clip(moved, low, high), 0.0) ** 2)
        free = total(jnp.where(at_limit, 0.0, flat) ** 2)
        return jnp.clip(root(fixed, free), t, 1.0), t

    def moving(carry: tuple[Array, Array]) -> Array:
        t, previous = carry
        return jnp.any((t > previous) & (t < 1.0))

    t = jnp.minimum(root(0.0, total(flat**2)), 1.0)  # nothing is clipped at 0
    if clip is not None:
        t, _ = jax.lax.while_loop(moving, climb, (t, jnp.zeros_like(t)))
    low, high = (limit - origin for limit in limits(origin, clip))
    return jnp.clip(t[:, None] * flat, low, high).reshape(shift.shape)
