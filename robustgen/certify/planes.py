"""What a linear relaxation of one equation is: a plane below the function and a plane above it.

A relaxation rule takes the equation and its operands, arrays where exact and `Interval`s where perturbed, like the
rules of interval arithmetic, and returns `Relaxed`. Rules are looked up by primitive name in `relaxations.RELAXATIONS`;
an equation without one is bounded by the constants that interval arithmetic gives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from robustgen.certify.interpreter import Equation
from robustgen.core import Array, Interval

Operand = Array | Interval


class Plane(NamedTuple):
    """sum_i slopes[i] * operand_i + offset, element by element, over the perturbed operands in their order.

    slopes: one array per perturbed operand, of the operand's shape, or None for one that the plane does not look at;
    offset: of the result's shape. For a reduction the products are summed over the reduced axes.
    """

    slopes: tuple[Array | None, ...]
    offset: Array


class Planes(NamedTuple):
    """lower(operands) <= function(operands) <= upper(operands) wherever the operands are within their intervals."""

    lower: Plane
    upper: Plane


class Relaxed(NamedTuple):
    """All the planes that a rule offers. Each value of the alphas, in [0, 1] element-wise, gives sound ones.

    planes(alpha_lower, alpha_upper)    the lower plane follows the first alone, the upper plane the second alone.
                                        Alphas may have leading axes more than the result; slopes and offset get them
    start                               the alphas of plain CROWN, of the result's shape; None where there is no choice
    """

    planes: Callable[[Array | None, Array | None], Planes]
    start: tuple[Array | None, Array | None] = (None, None)


Relaxation = Callable[..., Relaxed]
"""`relaxation(equation, *operands) -> Relaxed`."""


def fixed(planes: Planes) -> Relaxed:
    """A rule's answer where there is nothing to choose."""
    return Relaxed(lambda alpha_lower, alpha_upper: planes)


def constant(interval: Interval, operands: tuple[Operand, ...]) -> Relaxed:
    """The planes that do not look at the operands: sound for any function, given its interval."""
    flat = tuple(None for operand in operands if isinstance(operand, Interval))
    return fixed(Planes(Plane(flat, interval.lower), Plane(flat, interval.upper)))


def relu(x: Interval) -> Relaxed:
    """max(x, 0): the chord above; below, the line alpha x, alpha free in [0, 1].

    CROWN's alpha (Zhang et al. 2018, arXiv 1811.00866, section 3.3): 1 where u > -l, the smaller of the two areas,
    else 0; a tie gives 0, as auto_LiRPA's u / (u - l) > 0.5 does. Where there is no chord because u, or u - l, is
    infinite, x - l is above; where l is, the constant u, which is infinite if both are.
    """
    low, high = x
    active = low >= 0
    unstable = ~(active | (high <= 0))  # a bound that is not known makes neither
    narrow = unstable & jnp.isfinite(high - low)
    width = jnp.where(narrow, high - low, 1.0)
    steepest = jnp.where(jnp.isfinite(low), 1.0, 0.0)
    chord = jnp.where(active, 1.0, jnp.where(narrow, high / width, jnp.where(unstable, steepest, 0.0)))
    chord = chord.astype(low.dtype)
    beyond = jnp.where(jnp.isfinite(low), -low, jnp.where(jnp.isfinite(high), high, jnp.inf))
    offset = jnp.where(narrow, -low * jnp.where(narrow, chord, 0.0), jnp.where(unstable, beyond, 0.0))

    def planes(alpha_lower: Array, alpha_upper: None) -> Planes:
        slope = jnp.where(active, 1.0, jnp.where(unstable, alpha_lower, 0.0)).astype(low.dtype)
        return Planes(Plane((slope,), jnp.zeros_like(slope)), Plane((chord,), offset))

    return Relaxed(planes, ((high > -low).astype(low.dtype), None))


def maximum(equation: Equation, a: Operand, b: Operand) -> Relaxed:
    """max(a, b), a or b possibly exact: b + relu(a - b), which for b = 0 is relu itself."""
    if a is b:
        return same(a)
    low = jnp.subtract(*(_end(a, 0), _end(b, 1)))
    high = jnp.subtract(*(_end(a, 1), _end(b, 0)))
    difference = relu(Interval(low, high))

    def planes(alpha_lower: Array, alpha_upper: None) -> Planes:
        return Planes(*(_shifted(p, a, b) for p in difference.planes(alpha_lower, alpha_upper)))

    return Relaxed(planes, difference.start)


def minimum(equation: Equation, a: Operand, b: Operand) -> Relaxed:
    """min(a, b) = -max(-a, -b)."""
    if a is b:
        return same(a)
    flipped = maximum(equation, _negated(a), _negated(b))

    def planes(alpha_lower: None, alpha_upper: Array) -> Planes:
        lower, upper = flipped.planes(alpha_upper, alpha_lower)
        return Planes(Plane(upper.slopes, -upper.offset), Plane(lower.slopes, -lower.offset))

    return Relaxed(planes, flipped.start[::-1])


def same(x: Operand) -> Relaxed:
    """A function of the same value twice that returns it: the whole weight on the first mention."""
    one, zero = jnp.ones_like(x.lower), jnp.zeros_like(x.lower)
    plane = Plane((one, zero), zero)
    return fixed(Planes(plane, plane))


def _shifted(plane: Plane, a: Operand, b: Operand) -> Plane:
    """From slope s of relu(a - b) to those of b + relu(a - b)."""
    (slope,), offset = plane
    slopes = tuple(s for s, o in ((slope, a), (1 - slope, b)) if isinstance(o, Interval))
    for exact, weight in ((a, slope), (b, 1 - slope)):
        if not isinstance(exact, Interval):
            offset = offset + weight * jnp.where(weight == 0, 0.0, exact)  # max(-inf, x) is x
    return Plane(slopes, offset)


def _end(operand: Operand, end: int) -> Array:
    return operand[end] if isinstance(operand, Interval) else operand


def _negated(operand: Operand) -> Operand:
    return Interval(-operand.upper, -operand.lower) if isinstance(operand, Interval) else -operand
