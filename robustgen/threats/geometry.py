"""What the threat sets share: rounding inward, examples and their norms, boxes."""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array
from robustgen.knobs import Range

Clip = tuple[Annotated[float, Range(-np.inf)], Annotated[float, Range(-np.inf)]]


def round_down(value: float | Array, dtype: jax.typing.DTypeLike) -> np.ndarray | Array:
    """The largest number of type `dtype` that is not above `value`. Arrays of jax, tracers too, are only cast."""
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    exact = np.asarray(value, np.float64)
    rounded = exact.astype(dtype)
    return np.where(rounded > exact, np.nextafter(rounded, rounded.dtype.type(-np.inf)), rounded)


def norm_slack(x: Array) -> float:
    """A factor just below 1 that covers the rounding of a norm summed over one example."""
    return 1.0 - float(jnp.finfo(x.dtype).eps) * (8 + 4 * np.sqrt(x[0].size))


def unit(v: Array) -> Array:
    """Each example scaled to Euclidean norm 1; a zero stays zero. Divided by its largest entry first: the gradient of a
    confident model is small enough for its square to vanish."""
    flat = v.reshape(v.shape[0], -1)
    flat = flat / jnp.maximum(peak(jnp.abs(flat)), jnp.finfo(v.dtype).tiny)[:, None]
    return (flat / jnp.maximum(jnp.sqrt(total(flat * flat)), 1.0)[:, None]).reshape(v.shape)


def total(v: Array, axis: int = -1) -> Array:
    """The sum over one axis. Eighths of it are added first, element by element: XLA's CPU adds a row up number after
    number, each waiting for the one before, and takes up to twenty times as long."""
    return _folded(v, axis, jnp.add, jnp.sum)


def peak(v: Array, axis: int = -1) -> Array:
    """The maximum over one axis, in the manner of `total`."""
    return _folded(v, axis, jnp.maximum, jnp.max)


def _folded(v: Array, axis: int, pair: Callable, reduce: Callable) -> Array:
    length = v.shape[axis]
    if length <= 32:
        return reduce(v, axis)
    num = min(-(-length // 32), 8)
    size = length // num
    cut = functools.partial(jax.lax.slice_in_dim, v, axis=axis)
    whole = _folded(functools.reduce(pair, [cut(i * size, (i + 1) * size) for i in range(num)]), axis, pair, reduce)
    return pair(whole, reduce(cut(num * size, length), axis)) if length % num else whole


def per_example(values: Array, like: Array) -> Array:
    """`values` [B], or [..., B], with as many axes of size 1 after it as `like` has more."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def inner_axes(A: Array, x: Array) -> tuple[int, ...]:
    """The axes of one example, for A [..., *x.shape]."""
    return tuple(range(A.ndim - x.ndim + 1, A.ndim))


def clipped(x: Array, clip: tuple[float, float] | None) -> Array:
    """x within `clip`, the ends rounded inward; x itself for None."""
    return x if clip is None else jnp.clip(x, -round_down(-clip[0], x.dtype), round_down(clip[1], x.dtype))


def limits(x: Array, clip: tuple[float, float] | None) -> tuple[Array, Array]:
    """The box `clip` shaped like x; infinite for None."""
    low, high = (clipped(jnp.full_like(x, end), clip) for end in (-jnp.inf, jnp.inf))
    return low, high


def ball_bounds(eps: float | Array, clip: tuple[float, float] | None) -> Callable[[Array], tuple[Array, Array]]:
    """`Threat.bounds` of every ball that reaches eps along each axis, within `clip`."""

    def bounds(x: Array) -> tuple[Array, Array]:
        radius = round_down(eps, x.dtype)
        return clipped(jnp.minimum(x - radius, x), clip), clipped(jnp.maximum(x + radius, x), clip)

    return bounds


def box_support(A: Array, lower: Array, upper: Array) -> Array:
    """max <A, x'> over lower <= x' <= upper, for A [..., *lower.shape] -> [..., B]."""
    return jnp.sum(jnp.maximum(A * lower, A * upper), inner_axes(A, lower))
