"""The norms that distances are measured in, for minimal-norm attacks: `L0`, `L1`, `L2`, `LINF`.

Sizes and projections are over all but the first axis. L0 counts features: a colour pixel counts three times.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from robustgen.core import Array
from robustgen.threats.geometry import per_example
from robustgen.threats.selection import crossing, largest


class Radius(NamedTuple):
    """How the radius eps [B] of FMN moves (Pintor et al. 2021, arXiv 2102.12827, algorithm 1, lines 5 to 10).

    first(delta)                        before the search
    shrink(eps, gamma)                  at a misclassified point
    grow(eps, gamma)                    at a point that is not, after one was found
    approach(eps, gamma, overshoot, delta, gap, gradient)
                                        before one was found; gap [B] >= 0 is how far the margin is from 0
    """

    first: Callable[[Array], Array]
    shrink: Callable[[Array, Array], Array]
    grow: Callable[[Array, Array], Array]
    approach: Callable[[Array, Array, Array, Array, Array, Array], Array]


class Norm(NamedTuple):
    """A norm as pure functions.

    size(delta)          [B]
    project(delta, eps)  the nearest to `delta`, in the Euclidean sense, of size <= eps [B]
    between(delta, t)    on a path from 0 (t = 0) to delta (t = 1) along which the size never falls; t [B]
    radius               how FMN's radius moves
    """

    size: Callable[[Array], Array]
    project: Callable[[Array, Array], Array]
    between: Callable[[Array, Array], Array]
    radius: Radius


def _axes(v: Array) -> tuple[int, ...]:
    return tuple(range(1, v.ndim))


def _count(v: Array) -> Array:
    return jnp.sum(v != 0, _axes(v)).astype(v.dtype)


def _total(v: Array) -> Array:
    return jnp.sum(jnp.abs(v), _axes(v))


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, _axes(v)))


def _largest(v: Array) -> Array:
    return jnp.max(jnp.abs(v), _axes(v))


def _keep_largest(delta: Array, eps: Array) -> Array:
    """The eps largest entries, the first of equals."""
    count = jnp.clip(eps, 0, delta[0].size).astype(jnp.int32)[:, None]
    kept = largest(jnp.abs(delta).reshape(delta.shape[0], -1), count)
    return jnp.where(kept.reshape(delta.shape), delta, 0.0)


def _soften(delta: Array, threshold: Array) -> Array:
    """Every entry moved towards 0 by `threshold` [B]."""
    return jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - per_example(threshold, delta), 0.0)


def _project_l1(delta: Array, eps: Array) -> Array:
    """Every entry moved towards 0 by the least amount that fits: Duchi et al. 2008, whose sort is not needed."""
    budget = jnp.minimum(eps, _total(delta))  # eps may be infinite

    def total_at(level: Array) -> tuple[Array, Array]:
        left = _soften(delta, level)
        return _total(left), _count(left)

    _, level = crossing(total_at, _largest(delta), budget, 4 * jnp.finfo(delta.dtype).eps * budget)
    return _soften(delta, level)


def _project_l2(delta: Array, eps: Array) -> Array:
    return delta * per_example(jnp.minimum(eps / jnp.maximum(_length(delta), jnp.finfo(delta.dtype).tiny), 1.0), delta)


def _project_linf(delta: Array, eps: Array) -> Array:
    return jnp.clip(delta, -per_example(eps, delta), per_example(eps, delta))


def _smooth(size: Callable[[Array], Array], dual: Callable[[Array], Array]) -> Radius:
    """Radii of L1, L2 and LINF: |margin| / dual norm of its gradient is how far a linear model's boundary is."""

    def approach(eps: Array, gamma: Array, overshoot: Array, delta: Array, gap: Array, gradient: Array) -> Array:
        return (size(delta) + gap / jnp.maximum(dual(gradient), 1e-12)) * (1 + overshoot)

    return Radius(
        first=lambda delta: jnp.full(delta.shape[0], jnp.inf, delta.dtype),
        shrink=lambda eps, gamma: eps * (1 - gamma),
        grow=lambda eps, gamma: eps * (1 + gamma),
        approach=approach,
    )


def _grow_count(eps: Array, gamma: Array) -> Array:
    return jnp.maximum(eps + 1, jnp.floor(eps * (1 + gamma)))


COUNTED = Radius(
    first=lambda delta: jnp.maximum(_count(delta), 1.0),
    shrink=lambda eps, gamma: jnp.maximum(jnp.minimum(eps - 1, jnp.floor(eps * (1 - gamma))), 0.0),
    grow=_grow_count,
    approach=lambda eps, gamma, overshoot, delta, gap, gradient: _grow_count(eps, gamma),
)
"""Whole radii, which move by 1 at least."""

# The paths of L1 and LINF are the official ones, their parameter scaled by max |delta| instead of the width of the box.
L0 = Norm(_count, _keep_largest, lambda delta, t: _keep_largest(delta, t * delta[0].size), COUNTED)
L1 = Norm(
    _total, _project_l1, lambda delta, t: _soften(delta, (1 - t) * _largest(delta)), _smooth(_total, _largest)
)
L2 = Norm(_length, _project_l2, lambda delta, t: delta * per_example(t, delta), _smooth(_length, _length))
LINF = Norm(
    _largest, _project_linf, lambda delta, t: _project_linf(delta, t * _largest(delta)), _smooth(_largest, _total)
)
