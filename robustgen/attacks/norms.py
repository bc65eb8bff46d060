"""What FAB has to know of a norm: `linf`, `l2`, `l1`. Sizes are over all but the first axis."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen import threats
from robustgen.attacks import hyperplane
from robustgen.core import Array, Key
from robustgen.threats.geometry import Clip, norm_slack, per_example, round_down

WITHIN_ROUNDING = 1e-6
"""A point this much outside a set, relative to its radius, is moved into it before it is evaluated."""


class Norm(NamedTuple):
    """A norm as pure functions.

    name                      for the record
    size(shift)               [B]
    dual(gradient)            [B], how fast a linear function grows at most, by the size of the step
    to_plane                  the shortest way to a hyperplane inside a box: `hyperplane.Projection`
    direction(key, like)      random, of size 1, shaped like `like` [B, ...]; key [B]
    member(x, z, eps, clip)   (z, whether it is a member [B]) of the set of radius eps around x, for z in the box: moved
                              into the set, so that a check in float64 agrees, where no more than rounding is missing
    """

    name: str
    size: Callable[[Array], Array]
    dual: Callable[[Array], Array]
    to_plane: hyperplane.Projection
    direction: Callable[[Key, Array], Array]
    member: Callable[[Array, Array, float, Clip | None], tuple[Array, Array]]


def _axes(v: Array) -> tuple[int, ...]:
    return tuple(range(1, v.ndim))


def _largest(v: Array) -> Array:
    return jnp.max(jnp.abs(v), _axes(v))


def _total(v: Array) -> Array:
    return jnp.sum(jnp.abs(v), _axes(v))


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v * v, _axes(v)))


def _drawn(draw: Callable, size: Callable[[Array], Array]) -> Callable[[Key, Array], Array]:
    def direction(key: Key, like: Array) -> Array:
        noise = jax.vmap(lambda one: draw(one, like.shape[1:], like.dtype))(key)
        return noise / per_example(jnp.maximum(size(noise), jnp.finfo(like.dtype).tiny), like)

    return direction


def _sides(key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _near(length: Array, eps: float) -> Array:
    return length <= round_down(eps, length.dtype) * (1 + WITHIN_ROUNDING)


def _member_of_cube(x: Array, z: Array, eps: float, clip: Clip | None) -> tuple[Array, Array]:
    near = _near(_largest(z - x), eps)
    return jnp.where(per_example(near, x), threats.linf(eps, clip).project(x, z), z), near


def _member_of_ball(size: Callable[[Array], Array]) -> Callable:
    def member(x: Array, z: Array, eps: float, clip: Clip | None) -> tuple[Array, Array]:
        del clip  # between x and z, both in the box
        shift = z - x
        length = size(shift)
        radius = round_down(eps, x.dtype) * norm_slack(x)
        shrunk = x + shift * per_example(radius / jnp.maximum(length, jnp.finfo(x.dtype).tiny), x)
        inward = jnp.where(shrunk == x, x, jnp.nextafter(shrunk, x))  # the sum rounds outward by less than this
        near = _near(length, eps)
        return jnp.where(per_example(near & (length > radius), x), inward, z), near

    return member


linf = Norm("Linf", _largest, _total, hyperplane.to_plane_linf, _drawn(_sides, _largest), _member_of_cube)
l2 = Norm("L2", _length, _length, hyperplane.to_plane_l2, _drawn(jax.random.normal, _length), _member_of_ball(_length))
l1 = Norm("L1", _total, _largest, hyperplane.to_plane_l1, _drawn(jax.random.normal, _total), _member_of_ball(_total))
