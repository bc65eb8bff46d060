"""Linear relaxations of functions with kinks, and of the square root, which has an end."""

import jax.numpy as jnp

from robustgen.certify.curves import outward, over_leading_axes
from robustgen.certify.interpreter import Equation
from robustgen.certify.planes import Operand, Plane, Planes, Relaxation, Relaxed, constant, fixed, relu
from robustgen.certify.rules import RULES
from robustgen.core import Array, Interval


def two_pieces(equation: Equation, *operands: Operand) -> Relaxed:
    """A function that is linear on either side of zero, where it is zero, such as leaky relu: s x + (r - s) relu(x).

    Plain CROWN's choice is relu's: below (above, where r < s) the slope r where u > -l, else s, as in auto_LiRPA.
    """
    x, *rest = operands
    bounds = RULES[equation.name](equation, *operands)
    if not isinstance(x, Interval) or any(isinstance(operand, Interval) for operand in rest):
        return constant(bounds, operands)
    known = jnp.isfinite(x.lower) & jnp.isfinite(x.upper)
    x = Interval(*(jnp.where(known, end, 1.0) for end in x))
    one = jnp.ones_like(x.lower)
    left, right = -equation.apply(-one, *rest)[0], equation.apply(one, *rest)[0]
    bend, up = right - left, right >= left
    base = relu(x)
    slack = rounding(x, jnp.abs(left) + jnp.abs(right))

    def planes(alpha_lower: Array, alpha_upper: Array) -> Planes:
        sides = []
        for alpha, upward in ((alpha_lower, up), (alpha_upper, ~up)):
            below, above = base.planes(alpha, None)
            slope = left + bend * jnp.where(upward, below.slopes[0], above.slopes[0])
            sides.append(Plane((slope,), bend * jnp.where(upward, below.offset, above.offset)))
        moved = zip(sides, (-slack, slack), bounds, strict=True)
        return Planes(
            *(Plane((jnp.where(known, *p.slopes, 0),), jnp.where(known, p.offset + s, c)) for p, s, c in moved)
        )

    return Relaxed(over_leading_axes(planes, x.lower.ndim), (base.start[0], base.start[0]))


def absolute(equation: Equation, x: Interval) -> Relaxed:
    """|x|: the chord above; below, slopes from -1 to 1 where the sign is open, 0 in plain CROWN."""
    low, high = x
    sign = jnp.where(low >= 0, 1.0, jnp.where(high <= 0, -1.0, 0.0)).astype(low.dtype)
    unsure = (sign == 0) & jnp.isfinite(low) & jnp.isfinite(high)
    low, high = jnp.where(unsure, low, -1.0), jnp.where(unsure, high, 1.0)
    chord = jnp.where(unsure, (high + low) / (high - low), sign)
    offset = jnp.where(unsure, -2 * low * high / (high - low), jnp.where(sign == 0, jnp.inf, 0.0))
    offset = offset + jnp.where(unsure, rounding(x, 1.0), 0.0)

    def planes(alpha_lower: Array, alpha_upper: None) -> Planes:
        slope = jnp.where(sign == 0, 2 * alpha_lower - 1, sign)
        return Planes(Plane((slope,), jnp.zeros_like(slope)), Plane((chord,), offset))

    return Relaxed(over_leading_axes(planes, sign.ndim), (jnp.full_like(sign, 0.5), None))


def ramp(least: float, most: float) -> Relaxation:
    """x held between `least` and `most`, for functions of x alone."""
    return lambda equation, x: _ramp(x, least, most)


def clamp(equation: Equation, least: Operand, x: Operand, most: Operand) -> Relaxed:
    """x held between two exact arrays; constants where they are perturbed (see `rewrites`)."""
    if any(isinstance(operand, Interval) for operand in (least, most)):
        return constant(RULES[equation.name](equation, least, x, most), (least, x, most))
    return _ramp(x, least, most)


def _ramp(x: Interval, least: float | Array, most: float | Array) -> Relaxed:
    """Above, a line through (most, most), from level to the one that meets the lower end; below, the like at `least`.

    Where x does not go beyond `most` (`least`), the chord. Plain CROWN takes the steeper line where it leaves less area
    (auto_LiRPA's `BoundHardTanh`).
    """
    low, high = x
    flat = jnp.clip(low, least, most), jnp.clip(high, least, most)
    wide = jnp.isfinite(low) & jnp.isfinite(high) & (high > low)
    inside = ((low >= least) & (low <= most)).astype(low.dtype)
    chord = jnp.where(wide, (flat[1] - flat[0]) / jnp.where(wide, high - low, 1.0), jnp.where(high > low, 0.0, inside))
    above, below = high > most, low < least
    steep_above = jnp.where(wide & (most > low), (most - flat[0]) / jnp.where(most > low, most - low, 1.0), 0.0)
    steep_below = jnp.where(wide & (high > least), (flat[1] - least) / jnp.where(high > least, high - least, 1.0), 0.0)

    def planes(alpha_lower: Array, alpha_upper: Array) -> Planes:
        lower = jnp.where(below, alpha_lower * steep_below, chord)
        upper = jnp.where(above, alpha_upper * steep_above, chord)
        ends = flat[0] - times(lower, low), flat[1] - times(upper, high)
        return Planes(
            Plane((lower,), jnp.where(below, least - lower * least, ends[0]) - slack(lower)),
            Plane((upper,), jnp.where(above, most - upper * most, ends[1]) + slack(upper)),
        )

    def slack(slope: Array) -> Array:
        size = jnp.abs(flat[0]) + jnp.abs(flat[1]) + times(slope, jnp.abs(low) + jnp.abs(high))
        return 2 * jnp.finfo(low.dtype).eps * size

    start = (high - least > least - low), (high - most < most - low)
    return Relaxed(over_leading_axes(planes, low.ndim), tuple(s.astype(low.dtype) for s in start))


def times(slope: Array, end: Array) -> Array:
    """slope * end, 0 where the slope is, even at infinity."""
    return jnp.where(slope == 0, 0.0, slope * jnp.where(slope == 0, 0.0, end))


def rounding(x: Interval, slope: Array | float) -> Array:
    """A few rounding errors of slope * x."""
    size = jnp.where(jnp.isfinite(x.lower) & jnp.isfinite(x.upper), jnp.abs(x.upper) + jnp.abs(x.lower), 0.0)
    return 2 * jnp.finfo(x.lower.dtype).eps * slope * size


def sqrt(equation: Equation, x: Interval) -> Relaxed:
    """The square root, zero included: the chord below, tangents above, in plain CROWN the one in the middle."""
    known = (x.lower >= 0) & (x.upper > 0) & jnp.isfinite(x.upper)
    low, high = jnp.where(known, x.lower, 0.25), jnp.where(known, x.upper, 1.0)
    positive = low > 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, low, 1.0)), 0.0)
    slope = 1 / (root + jnp.sqrt(high))
    slack = 4 * jnp.finfo(low.dtype).eps * jnp.sqrt(high)
    fallback = outward(RULES[equation.name](equation, x))

    def planes(alpha_lower: None, alpha_upper: Array) -> Planes:
        touched = jnp.sqrt(jnp.maximum(low + alpha_upper * (high - low), 1e-6 * high))
        sides = (
            (slope, root - slope * low - slack, fallback.lower),
            (0.5 / touched, touched / 2 + slack, fallback.upper),
        )
        return Planes(*(Plane((jnp.where(known, s, 0),), jnp.where(known, o, c)) for s, o, c in sides))

    return Relaxed(over_leading_axes(planes, low.ndim), (None, jnp.full_like(low, 0.5)))


def identity(equation: Equation, x: Interval) -> Relaxed:
    """What returns its operand as it is, whatever it does to derivatives."""
    plane = Plane((jnp.ones_like(x.lower),), jnp.zeros_like(x.lower))
    return fixed(Planes(plane, plane))
