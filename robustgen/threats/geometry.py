"""What the threat sets share: rounding inward, rows and their norms, boxes, and levels found without sorting."""

from typing import Annotated, Callable, NamedTuple

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
    axes = tuple(range(1, v.ndim))
    v = v / jnp.maximum(jnp.max(jnp.abs(v), axes, keepdims=True), jnp.finfo(v.dtype).tiny)
    return v / jnp.maximum(jnp.sqrt(jnp.sum(v * v, axes, keepdims=True)), 1.0)


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


class Bracket(NamedTuple):
    """Where a search for a level stands: total(lower) > budget >= total(upper), and the level to look at next."""

    lower: Array
    upper: Array
    level: Array
    turn: Array
    done: Array


def crossing(
    total_at: Callable[[Array], tuple[Array, Array]], high: Array, budget: Array, tolerance: Array
) -> tuple[Array, Array]:
    """Levels (lower, upper) in [0, high] around the one where a falling total meets its budget, each like `high`.

    `total_at(level)` gives the total and how fast it falls (0 where that is not known). Newton steps, exact once no
    kink lies between a level and the crossing; every fourth step, and where Newton leaves the bracket, halves it
    instead. Ends with total(upper) in [budget - tolerance, budget], or with upper and lower neighbouring floats, or with
    both 0 where total(0) is within the budget.
    """

    def narrow(b: Bracket) -> Bracket:
        total, slope = total_at(b.level)
        above = total > budget
        lower, upper = jnp.where(above, b.level, b.lower), jnp.where(above, b.upper, b.level)
        middle = lower + (upper - lower) / 2
        newton = b.level + (total - (budget - tolerance / 2)) / slope  # without a slope infinite or NaN: outside
        trusted = (newton > lower) & (newton < upper) & (b.turn % 4 != 3)
        met = ~above & (total >= budget - tolerance)
        done = met | (middle <= lower) | (middle >= upper)
        level = jnp.where(done, upper, jnp.where(trusted, newton, middle))  # a row that is done stays as it is
        return Bracket(lower, upper, level, b.turn + 1, done)

    zero = jnp.zeros_like(high)
    begin = Bracket(zero, high, zero, jnp.int32(0), jnp.zeros(high.shape, bool))
    found = jax.lax.while_loop(lambda b: ~jnp.all(b.done), narrow, begin)
    return found.lower, found.upper


def largest(scores: Array, count: Array) -> Array:
    """Mask of the `count` largest of scores [..., D] >= 0 along the last axis, the first of equals; count may be traced.

    The count-th largest is read off bit by bit, for the bits of non-negative floats are ordered as they are: a tenth of
    the time of a sort on a CPU.
    """
    size, kind = scores.shape[-1], {4: jnp.int32, 8: jnp.int64}[scores.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(jnp.abs(scores), kind)
    floor = _ranked(bits, count, 8 * scores.dtype.itemsize - 1)
    equal = bits == floor
    room = count - jnp.sum(bits > floor, -1, keepdims=True)
    order = jnp.where(equal, size - jnp.arange(size, dtype=kind).reshape((1,) * (bits.ndim - 1) + (size,)), 0)
    return (bits > floor) | (equal & (order >= _ranked(order, room, size.bit_length())))


def _ranked(values: Array, count: Array, num_bits: int) -> Array:
    """The count-th largest of whole numbers [..., D] below 2^num_bits, [..., 1]; 0 where there are fewer."""

    def refine(index: Array, found: Array) -> Array:
        tried = found | (jnp.ones((), values.dtype) << (num_bits - 1 - index).astype(values.dtype))
        return jnp.where(jnp.sum(values >= tried, -1, keepdims=True) >= count, tried, found)

    return jax.lax.fori_loop(0, num_bits, refine, jnp.zeros((*values.shape[:-1], 1), values.dtype))
