"""Threat sets: what an adversary may turn `x` into. Each factory returns a `core.Threat`.

Every set here lies inside the real ball *and* the real box, not only up to rounding: float32 `x + 8/255` is outside the
ball of radius 8/255 for one pixel in seven, which is harmless to accuracy and fatal to "no example is both certified
and broken". So radii and bounds are rounded inward, by at most 2 units in the last place.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, Threat
from robustgen.knobs import KnobError, NonNegative, Range, checked

Clip = tuple[Annotated[float, Range(-np.inf)], Annotated[float, Range(-np.inf)]]


@checked
def linf(eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Threat:
    """{x': |x' - x| <= eps in every coordinate, clip[0] <= x' <= clip[1]}; `clip=None` for unbounded inputs."""

    def bounds(x: Array) -> tuple[Array, Array]:
        radius = round_down(eps, x.dtype)
        lower = jnp.minimum(jnp.nextafter(x - radius, jnp.inf), x)
        upper = jnp.maximum(jnp.nextafter(x + radius, -jnp.inf), x)
        return _clip(lower, clip), _clip(upper, clip)

    return _from_bounds(bounds)


@checked
def box(lower: Array, upper: Array) -> Threat:
    """{x': lower <= x' <= upper}, whatever x is: one set for all examples, or per-feature limits [...] that broadcast.

    Raises `KnobError` where a concrete lower bound exceeds the upper.
    """
    if not isinstance(lower, jax.core.Tracer) and not isinstance(upper, jax.core.Tracer):
        if not np.all(np.asarray(lower) <= np.asarray(upper)):
            raise KnobError("lower", "must not exceed upper in any feature")

    def bounds(x: Array) -> tuple[Array, Array]:
        return jnp.broadcast_to(jnp.asarray(lower, x.dtype), x.shape), jnp.broadcast_to(
            jnp.asarray(upper, x.dtype), x.shape
        )

    return _from_bounds(bounds)


@checked
def l2(eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Threat:
    """{x': ||x' - x||_2 <= eps, clip[0] <= x' <= clip[1]}, the norm over all but the first axis.

    `project` is the exact Euclidean projection onto the intersection of ball and box. `support` is exact without
    `clip`; with it, the smaller of the ball's and the box's (an upper bound).
    """

    def bounds(x: Array) -> tuple[Array, Array]:
        radius = round_down(eps, x.dtype)
        return _clip(jnp.minimum(x - radius, x), clip), _clip(jnp.maximum(x + radius, x), clip)

    def project(x: Array, x_adv: Array) -> Array:
        low, high = (_clip(jnp.full_like(x, end), clip) for end in (-jnp.inf, jnp.inf))
        wanted = x_adv - x
        shift = _cap_norm(wanted, low - x, high - x, round_down(eps, x.dtype) * _norm_slack(x))
        moved = _clip(x + shift, clip)
        inward = jnp.where(moved == x, x, jnp.nextafter(moved, x))  # the sum rounds outward by less than this
        return jnp.where(shift == wanted, _clip(x_adv, clip), inward)

    def sample(x: Array, keys: Key) -> Array:
        direction = jax.vmap(lambda key, row: jax.random.normal(key, row.shape, row.dtype))(keys, x)
        size = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (), x.dtype))(keys)
        radii = round_down(eps, x.dtype) * size ** (1.0 / x[0].size)  # uniform in the ball
        return project(x, x + _unit(direction) * _per_example(radii, x))

    def support(A: Array, x: Array) -> Array:
        axes = tuple(range(A.ndim - x.ndim + 1, A.ndim))
        ball = jnp.sum(A * x, axes) + round_down(eps, x.dtype) * jnp.sqrt(jnp.sum(A * A, axes))
        return ball if clip is None else jnp.minimum(ball, _box_support(A, *bounds(x)))

    return Threat(sample, project, lambda g, step: step * _unit(g), bounds, support)


def _from_bounds(bounds) -> Threat:
    """The threat of a box around x, in which everything is per coordinate and exact."""

    def sample(x: Array, keys: Key) -> Array:
        lower, upper = bounds(x)
        uniform = jax.vmap(lambda key, row: jax.random.uniform(key, row.shape, row.dtype))(keys, x)
        return jnp.clip(lower + uniform * (upper - lower), lower, upper)

    return Threat(
        sample=sample,
        project=lambda x, x_adv: jnp.clip(x_adv, *bounds(x)),
        ascend=lambda gradient, step: step * jnp.sign(gradient),
        bounds=bounds,
        support=lambda A, x: _box_support(A, *bounds(x)),
    )


def _box_support(A: Array, lower: Array, upper: Array) -> Array:
    return jnp.sum(jnp.maximum(A * lower, A * upper), tuple(range(A.ndim - lower.ndim + 1, A.ndim)))


def _cap_norm(shift: Array, low: Array, high: Array, radius: Array) -> Array:
    """clip(t * shift, low, high) with the largest t <= 1 whose norm is within `radius`, per example.

    That is the projection of x + shift onto ball and box, for low <= 0 <= high. The squared norm is piecewise quadratic
    in t; solving for t with the coordinates clipped so far, and again with those clipped at that t, climbs to the root
    from below and stays when no further coordinate clips.
    """
    axes = tuple(range(1, shift.ndim))

    def climb(carry):
        t, _ = carry
        moved = _per_example(t, shift) * shift
        clipped = (moved < low) | (moved > high)
        fixed = jnp.sum(jnp.where(clipped, jnp.clip(moved, low, high), 0.0) ** 2, axes)
        free = jnp.sum(jnp.where(clipped, 0.0, shift) ** 2, axes)
        root = jnp.sqrt(jnp.maximum(radius**2 - fixed, 0.0) / jnp.maximum(free, jnp.finfo(shift.dtype).tiny))
        return jnp.clip(root, t, 1.0), t

    def moving(carry):
        t, previous = carry
        return jnp.any(t > previous)

    start = jnp.zeros(shift.shape[0], shift.dtype)
    t, _ = jax.lax.while_loop(moving, climb, climb((start, start)))
    return jnp.clip(_per_example(t, shift) * shift, low, high)


def _norm_slack(x: Array) -> float:
    """A factor just below 1 that covers the rounding of a norm summed over one example."""
    return 1.0 - float(jnp.finfo(x.dtype).eps) * (8 + 4 * np.sqrt(x[0].size))


def _unit(v: Array) -> Array:
    """Each example scaled to norm 1; a zero stays zero. Divided by its largest entry first: the gradient of a confident
    model is small enough for its square to vanish."""
    axes = tuple(range(1, v.ndim))
    v = v / jnp.maximum(jnp.max(jnp.abs(v), axes, keepdims=True), jnp.finfo(v.dtype).tiny)
    return v / jnp.maximum(jnp.sqrt(jnp.sum(v * v, axes, keepdims=True)), 1.0)


def _per_example(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def _clip(x: Array, clip: tuple[float, float] | None) -> Array:
    return x if clip is None else jnp.clip(x, -round_down(-clip[0], x.dtype), round_down(clip[1], x.dtype))


def round_down(value: float | Array, dtype: jax.typing.DTypeLike) -> np.ndarray | Array:
    """The largest number of type `dtype` that is not above `value`. Arrays of jax, tracers too, are only cast."""
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    exact = np.asarray(value, np.float64)
    rounded = exact.astype(dtype)
    return np.where(rounded > exact, np.nextafter(rounded, rounded.dtype.type(-np.inf)), rounded)
