"""Sparse threats: a bounded number of features or pixels, changed by any amount within a box."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key, Threat
from robustgen.knobs import CountOrZero, checked
from robustgen.threats.geometry import Clip, clipped, inner_axes, limits, unit
from robustgen.threats.selection import largest


@checked
def l0(eps: CountOrZero, clip: Clip = (0.0, 1.0)) -> Threat:
    """{x': at most `eps` features differ from x, clip[0] <= x' <= clip[1]}; a traced `eps` is rounded down.

    The set is not convex. `project` gives a nearest member: of the clipped changes it keeps those that would cost most
    to leave out (of equal ones the first), as in PGD_0, Croce & Hein 2019 (arXiv 1909.05040), section 3.1. `ascend` is
    the step along the gradient of Euclidean length `step` (PGD_0 scales its L1 norm); which features move is for
    `project` to say. `sample` draws the features and their values uniformly. `support` is exact.
    """
    return _sparse(eps, clip, lambda gain: gain)


@checked
def l0_pixels(eps: CountOrZero, clip: Clip = (0.0, 1.0)) -> Threat:
    """`l0` with pixels for features: x [B, ..., C] may change at `eps` places, in all channels of each.

    Raises `ValueError` where x has no axis of places.
    """

    def over_channels(gain: Array) -> Array:
        if gain.ndim < 3:
            raise ValueError(f"l0_pixels takes x [B, ..., C]; got shape {gain.shape}")
        return jnp.sum(gain, -1, keepdims=True)

    return _sparse(eps, clip, over_channels)


def _sparse(eps: int | Array, clip: tuple[float, float], together: Callable[[Array], Array]) -> Threat:
    """`together` sums what is gained by features [..., *x.shape] over those that count as one."""
    count = jnp.asarray(eps).astype(jnp.int32)

    def kept(gain: Array, x: Array) -> Array:
        """Mask of the features worth most, for gains [..., *x.shape] >= 0."""
        gain = jax.lax.stop_gradient(together(gain))
        rows = gain.reshape(*gain.shape[: gain.ndim - x.ndim + 1], -1)
        return largest(rows, count).reshape(gain.shape)

    def bounds(x: Array) -> tuple[Array, Array]:
        low, high = limits(x, clip)
        return jnp.where(count > 0, low, x), jnp.where(count > 0, high, x)

    def project(x: Array, x_adv: Array) -> Array:
        nearest = clipped(x_adv, clip)
        left_out, moved = x_adv - x, x_adv - nearest
        return jnp.where(kept((nearest - x) * (left_out + moved), x), nearest, x)  # left_out^2 - moved^2

    def sample(x: Array, keys: Key) -> Array:
        low, high = limits(x, clip)
        places, values = (jax.vmap(functools.partial(_uniform, n))(keys, x) for n in range(2))
        return jnp.where(kept(places, x), jnp.clip(low + values * (high - low), low, high), x)

    def support(A: Array, x: Array) -> Array:
        low, high = limits(x, clip)
        gain = jnp.maximum(A * (low - x), A * (high - x))
        return jnp.sum(A * x + jnp.where(kept(gain, x), gain, 0.0), inner_axes(A, x))

    return Threat(sample, project, lambda g, step: step * unit(g), bounds, support)


def _uniform(index: int, key: Key, row: Array) -> Array:
    return jax.random.uniform(jax.random.fold_in(key, index), row.shape, row.dtype)
