"""Shortest ways to a hyperplane inside a box: FAB's projections, Croce & Hein 2020 (arXiv 1907.02044), section 3.1.

Each function is a `Projection`. With c = |gap|, s_i = |w_i| and r_i the room between z_i and the side of the box that
coordinate i moves to, all look for moves 0 <= m_i <= r_i with sum_i s_i m_i = c of least size:

    Linf  m_i = min(t, r_i)        L2  m_i = min(t s_i, r_i)        L1  m_i = r_i where s_i is largest, then 0

sum_i s_i m_i is piecewise linear and concave in t, so Newton's method from t = 0 climbs to the root and stops on it,
after some 5 passes where the paper and the official code sort. The L1 threshold is bisected.

Unlike the official code, w is scaled to largest entry 1 first: coordinates with |w_i| <= 1e-8 are not left out (the
official L2 and L1 projections return 0 for a net with gradients that small), and no square vanishes.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from robustgen.core import Array

HUGE = 1e30
"""Stands for infinity in rooms and in t: products with zero stay zero."""


class Projection(Protocol):
    """The shift [..., B, F] of least size that takes z to the hyperplane w . z' = w . z - gap inside the box.

    z [..., B, F] in the box, w [B, F] or [..., B, F], gap [..., B]; lower and upper broadcast against z and may be
    infinite. Where the box does not reach the hyperplane, the way to its nearest corner, along the coordinates with
    w != 0. L1: of several shortest ways, one that treats coordinates of equal |w| in proportion to their room.
    """

    def __call__(self, z: Array, w: Array, gap: Array, lower: Array, upper: Array) -> Array: ...


class Ways(NamedTuple):
    """sign [..., B, F] of each coordinate's move, slope and room as above, need [..., B] = c, all for max |w| = 1."""

    sign: Array
    slope: Array
    room: Array
    need: Array


def to_plane_linf(z: Array, w: Array, gap: Array, lower: Array, upper: Array) -> Array:
    """Linf: `Projection`."""
    return _same_time(z, w, gap, lower, upper, lambda slope: (slope > 0).astype(slope.dtype))


def to_plane_l2(z: Array, w: Array, gap: Array, lower: Array, upper: Array) -> Array:
    """L2: `Projection`."""
    return _same_time(z, w, gap, lower, upper, lambda slope: slope)


def to_plane_l1(z: Array, w: Array, gap: Array, lower: Array, upper: Array) -> Array:
    """L1: `Projection`."""
    sign, slope, room, need = _ways(z, w, gap, lower, upper)
    gain = jnp.minimum(slope * room, need[..., None])  # no coordinate goes beyond the hyperplane
    low, high = _threshold(slope, gain, need)
    taken = slope > high[..., None]
    tied = (slope > low[..., None]) & ~taken
    left = need - _total(jnp.where(taken, gain, 0.0))
    share = jnp.clip(left / _positive(_total(jnp.where(tied, gain, 0.0))), 0.0, 1.0)
    spent = jnp.where(taken, gain, jnp.where(tied, share[..., None] * gain, 0.0))
    return sign * jnp.minimum(spent / _positive(slope), room)


def _ways(z: Array, w: Array, gap: Array, lower: Array, upper: Array) -> Ways:
    scale = _positive(jnp.max(jnp.abs(w), axis=-1, keepdims=True))
    slope = jnp.abs(w) / scale
    down = (w > 0) == (gap >= 0)[..., None]
    room = jnp.minimum(jnp.where(down, z - lower, upper - z), HUGE)
    return Ways(jnp.where(down, -1.0, 1.0), slope, room, jnp.minimum(jnp.abs(gap) / scale[..., 0], HUGE))


def _same_time(z: Array, w: Array, gap: Array, lower: Array, upper: Array, speed: Callable[[Array], Array]) -> Array:
    """All coordinates leave at once, each at its speed, until the hyperplane is met."""
    sign, slope, room, need = _ways(z, w, gap, lower, upper)
    speeds = speed(slope)
    time = _meeting_time(slope, speeds, room, need)
    return sign * jnp.minimum(time[..., None] * speeds, room)


def _meeting_time(slope: Array, speed: Array, room: Array, need: Array) -> Array:
    """The t >= 0 [..., B] with sum slope * min(t * speed, room) = need, where there is one; else beyond all rooms."""

    def climb(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        t, _ = carry
        full = room <= t[..., None] * speed
        fixed = _total(jnp.where(full, slope * room, 0.0))
        free = _total(jnp.where(full, 0.0, slope * speed))
        return jnp.clip((need - fixed) / _positive(free), t, HUGE), t  # the tangent of a concave curve lies above it

    start = jnp.zeros_like(need)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0] > carry[1]), climb, climb((start, start)))[0]


def _threshold(slope: Array, gain: Array, need: Array) -> tuple[Array, Array]:
    """(low, high) [..., B]: the gains of slopes > high stay below `need`, those of slopes > low reach it (if all do),
    and slopes in between are equal, up to rounding. Bisects their exponents, then their digits: 30 passes in float32,
    whatever the numbers."""

    def middle(low: Array, high: Array) -> Array:
        return jnp.sqrt(low) * jnp.sqrt(high)

    def halve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = carry
        mid = middle(low, high)
        reached = _total(jnp.where(slope > mid[..., None], gain, 0.0)) >= need
        return jnp.where(reached, mid, low), jnp.where(reached, high, mid)

    def apart(carry: tuple[Array, Array]) -> Array:
        mid = middle(*carry)
        return jnp.any((mid > carry[0]) & (mid < carry[1]))

    return jax.lax.while_loop(apart, halve, (jnp.full_like(need, jnp.finfo(need.dtype).tiny), jnp.ones_like(need)))


def _total(v: Array) -> Array:
    return jnp.sum(v, axis=-1)


def _positive(v: Array) -> Array:
    """v, kept from being zero in a denominator."""
    return jnp.maximum(v, jnp.finfo(v.dtype).tiny)
