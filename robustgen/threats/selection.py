"""Levels and ranks within each example, found without a sort.

A sort of [250, 784] or [128, 3072] alone costs 23 and 55 ms of CPU time, a whole projection onto the L1 ball 2.1 and
1.9 (least of 20 on 2 CPU cores, jax 0.12; `experiments/benchmarks/projections.py`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.core import Array


class Bracket(NamedTuple):
    """Where a search for a level stands: total(lower) > budget >= total(upper), and the level to look at next."""

    lower: Array
    upper: Array
    level: Array
    missed: Array
    done: Array


def crossing(
    total_at: Callable[[Array], tuple[Array, Array]], high: Array, budget: Array, tolerance: Array
) -> tuple[Array, Array]:
    """Levels (lower, upper) in [0, high] around the one where a falling total meets its budget, each like `high`.

    `total_at(level)` gives the total, within the budget at `high`, and how fast it falls (0 where that is not known).
    Newton steps, exact once no kink lies between a level and the crossing; where one leaves the bracket, or the one
    before has not halved what was missed, the bracket is halved instead, which ends it for any total. Ends with
    total(upper) in [budget - tolerance, budget], with neighbouring floats, or, where total(0) is within the budget,
    with both 0.
    """

    def narrow(b: Bracket) -> Bracket:
        total, slope = total_at(b.level)
        above, missed = total > budget, total - (budget - tolerance / 2)
        lower, upper = jnp.where(above, b.level, b.lower), jnp.where(above, b.upper, b.level)
        middle = lower + (upper - lower) / 2
        newton = b.level + missed / slope  # without a slope infinite or NaN: outside
        trusted = (newton > lower) & (newton < upper) & (jnp.abs(missed) <= b.missed / 2)
        met = ~above & (total >= budget - tolerance)
        done = met | (middle <= lower) | (middle >= upper)
        level = jnp.where(done, upper, jnp.where(trusted, newton, middle))  # a row that is done stays as it is
        return Bracket(lower, upper, level, jnp.where(trusted, jnp.abs(missed), jnp.inf), done)

    zero = jnp.zeros_like(high)
    begin = Bracket(zero, high, zero, jnp.full_like(high, jnp.inf), jnp.zeros(high.shape, bool))
    found = jax.lax.while_loop(lambda b: ~jnp.all(b.done), narrow, begin)
    return found.lower, found.upper


def largest(scores: Array, count: Array) -> Array:
    """Mask of the `count` largest of scores [..., D] >= 0 along the last axis, the first of equals; a tracer too.

    The count-th largest is found bit by bit, for the bits of non-negative floats are ordered as they are.
    """
    size, kind = scores.shape[-1], {4: jnp.int32, 8: jnp.int64}[scores.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(jnp.abs(scores), kind)
    floor = _ranked(bits, count, 8 * scores.dtype.itemsize - 1)
    equal = bits == floor
    room = count - jnp.sum(bits > floor, -1, keepdims=True)
    from_the_end = size - jnp.arange(size, dtype=kind).reshape((1,) * (bits.ndim - 1) + (size,))
    order = jnp.where(equal, from_the_end, 0)
    return (bits > floor) | (equal & (order >= _ranked(order, room, size.bit_length())))


def _ranked(values: Array, count: Array, num_bits: int) -> Array:
    """The count-th largest of whole numbers [..., D] below 2^num_bits, [..., 1]; 0 where there are fewer."""

    def refine(index: Array, found: Array) -> Array:
        tried = found | (jnp.ones((), values.dtype) << (num_bits - 1 - index).astype(values.dtype))
        return jnp.where(jnp.sum(values >= tried, -1, keepdims=True) >= count, tried, found)

    return jax.lax.fori_loop(0, num_bits, refine, jnp.zeros((*values.shape[:-1], 1), values.dtype))
