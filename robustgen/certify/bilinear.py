"""Linear relaxations of products, and of functions that look at several entries at once."""

import jax
import jax.numpy as jnp

from robustgen.certify.curves import outward, over_leading_axes
from robustgen.certify.interpreter import Equation
from robustgen.certify.planes import Operand, Plane, Planes, Relaxed, constant, fixed
from robustgen.certify.rules import RULES
from robustgen.core import Array, Interval


def mul(equation: Equation, a: Operand, b: Operand) -> Relaxed:
    """a * b of two perturbed operands: blends of McCormick's planes (1976); of a value with itself, the square.

    Below run b_l a + a_l b - a_l b_l and b_u a + a_u b - a_u b_u, above b_u a + a_l b - a_l b_u and its counterpart;
    alpha is the weight of the first, 1 in plain CROWN, as in auto_LiRPA.
    """
    if a is b:
        return square(equation, a, b)
    (al, ah), (bl, bh) = a, b
    finite = jnp.isfinite(al) & jnp.isfinite(ah) & jnp.isfinite(bl) & jnp.isfinite(bh)
    al, ah, bl, bh = (jnp.where(finite, end, 0) for end in (al, ah, bl, bh))
    fallback = RULES[equation.name](equation, a, b)
    slack = 2 * jnp.finfo(al.dtype).eps * jnp.maximum(jnp.abs(al), jnp.abs(ah)) * jnp.maximum(jnp.abs(bl), jnp.abs(bh))

    def blend(alpha: Array, first: tuple[Array, Array], second: tuple[Array, Array], slack: Array) -> Plane:
        (slope_a, slope_b), (other_a, other_b) = first, second
        slopes = (other_a + alpha * (slope_a - other_a), other_b + alpha * (slope_b - other_b))
        offset = -(other_a * other_b + alpha * (slope_a * slope_b - other_a * other_b)) - slack
        return Plane(slopes, offset)

    def planes(alpha_lower: Array, alpha_upper: Array) -> Planes:
        lower = blend(alpha_lower, (bl, al), (bh, ah), slack)
        upper = blend(alpha_upper, (bh, al), (bl, ah), -slack)
        return Planes(
            lower._replace(offset=jnp.where(finite, lower.offset, fallback.lower)),
            upper._replace(offset=jnp.where(finite, upper.offset, fallback.upper)),
        )

    one = jnp.ones_like(al)
    return Relaxed(over_leading_axes(planes, al.ndim), (one, one))


def square(equation: Equation, *operands: Operand) -> Relaxed:
    """x^2, or x * x: the chord above; below the tangents, at alpha between the ends.

    Plain CROWN takes the one that touches nearest to zero, which is nowhere negative (auto_LiRPA's `BoundSqr`).
    """
    x = operands[0]
    known = jnp.isfinite(x.lower * x.lower) & jnp.isfinite(x.upper * x.upper)
    low, high = (jnp.where(known, end, 0.0) for end in x)
    fallback = RULES[equation.name](equation, *operands)
    width = jnp.where(high > low, high - low, 1.0)
    slack = 2 * jnp.finfo(low.dtype).eps * jnp.maximum(low * low, high * high)

    def plane(slope: Array, offset: Array, otherwise: Array) -> Plane:
        slopes = (jnp.where(known, slope, 0), *(None for _ in operands[1:]))
        return Plane(slopes, jnp.where(known, offset, otherwise))

    def planes(alpha_lower: Array, alpha_upper: None) -> Planes:
        point = low + alpha_lower * (high - low)
        return Planes(
            plane(2 * point, -point * point - slack, fallback.lower),
            plane(low + high, -low * high + slack, fallback.upper),
        )

    start = jnp.clip((jnp.clip(0.0, low, high) - low) / width, 0, 1)
    return Relaxed(over_leading_axes(planes, low.ndim), (jax.lax.stop_gradient(start), None))


def reduce_max(equation: Equation, x: Interval) -> Relaxed:
    """max over axes: below, the entry with the largest lower bound; above, an entry that dominates all others if there
    is one, else the largest upper bound (as auto_LiRPA's `BoundMaxPool`)."""
    axes = tuple(equation.params["axes"])
    best = _first_largest(x.lower, axes)
    others = jnp.max(jnp.where(best, -jnp.inf, x.upper), axes)
    least, most = jnp.max(x.lower, axes), jnp.max(x.upper, axes)
    dominates = least >= others
    slopes = best.astype(x.lower.dtype)
    upper = slopes * jnp.expand_dims(dominates, axes)
    zero = jnp.zeros_like(least)
    return fixed(Planes(Plane((slopes,), zero), Plane((upper,), jnp.where(dominates, zero, most))))


def reduce_min(equation: Equation, x: Interval) -> Relaxed:
    """min = -max(-x)."""
    lower, upper = reduce_max(equation, Interval(-x.upper, -x.lower)).planes(None, None)
    return fixed(Planes(Plane(upper.slopes, -upper.offset), Plane(lower.slopes, -lower.offset)))


def _first_largest(values: Array, axes: tuple[int, ...]) -> Array:
    """True at the first of the largest entries along `axes`, in the shape of `values`."""
    kept = [axis for axis in range(values.ndim) if axis not in axes]
    order = (*kept, *axes)
    moved = jnp.transpose(values, order)
    flat = moved.reshape(*moved.shape[: len(kept)], -1)
    largest = (flat == jnp.max(flat, -1, keepdims=True)) | jnp.isnan(flat)  # argmax is not compiled inside enable_x64
    chosen = largest & (jnp.cumsum(largest, -1, dtype=jnp.int32) == 1)
    return jnp.transpose(chosen.reshape(moved.shape), [order.index(axis) for axis in range(values.ndim)])


def select(equation: Equation, which: Operand, *cases: Operand) -> Relaxed:
    """A choice by a perturbed truth value: the case itself where the choice is decided, else constants."""
    operands = (which, *cases)
    if not isinstance(which, Interval) or which.lower.dtype != jnp.bool_:
        return constant(RULES[equation.name](equation, *operands), operands)
    result = RULES[equation.name](equation, *operands)
    decided = which.lower == which.upper
    chosen = (decided & ~which.lower, decided & which.lower)
    sides = []
    for bound in result:
        offset = jnp.where(decided, 0, bound)
        slopes: list[Array | None] = [None]
        for case, taken in zip(cases, chosen, strict=True):
            if isinstance(case, Interval):
                slopes.append(taken.astype(bound.dtype))
            else:
                offset = jnp.where(taken, case, offset)
        sides.append(Plane(tuple(slopes), offset))
    return fixed(Planes(*sides))


def logsumexp(equation: Equation, x: Interval) -> Relaxed:
    """log sum exp over axes. It is convex in all entries together: below run tangents, at the point that is alpha of
    the way between the ends in every entry. Above, chords of the exponentials, then a tangent of the logarithm.

    Plain CROWN takes the middle in both (the bounds of Wei et al. 2023, arXiv 2303.01713, for softmax's logarithm).
    """
    axes = tuple(equation.params["axes"])
    shift = jax.lax.stop_gradient(jnp.max(x.upper, axes, keepdims=True))
    present = jnp.isfinite(x.lower) & jnp.isfinite(x.upper)
    gone = x.upper == -jnp.inf
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0)
    low, high = (jnp.where(present, end - shift, -1.0) for end in x)
    known = jnp.all(present | gone, axes) & jnp.any(present, axes)
    fallback = outward(RULES[equation.name](equation, x))
    width = high - low
    values = jnp.where(present, jnp.exp(low), 0), jnp.where(present, jnp.exp(high), 0)
    chord = jnp.where(width > 0, (values[1] - values[0]) / jnp.where(width > 0, width, 1.0), values[0])
    sums = [jnp.where(known, jnp.sum(value, axes), 1.0) for value in values]

    def planes(alpha_lower: Array, alpha_upper: Array) -> Planes:
        point = low + jnp.expand_dims(alpha_lower, axes) * width
        terms = jnp.where(present, jnp.exp(point), 0)
        total = jnp.where(known, jnp.sum(terms, axes), 1.0)
        weights = terms / jnp.expand_dims(total, axes)
        tangent = jnp.log(total) - jnp.sum(weights * point, axes)
        middle = sums[0] + alpha_upper * (sums[1] - sums[0])
        slopes = chord / jnp.expand_dims(middle, axes)
        above = jnp.log(middle) - 1 + jnp.sum(values[0] - chord * low, axes) / middle
        return Planes(moved(weights, tangent, fallback.lower, -1), moved(slopes, above, fallback.upper, 1))

    def moved(slopes: Array, offset: Array, otherwise: Array, outside: int) -> Plane:
        """The plane in x itself, a few rounding errors further outside."""
        slopes = jnp.where(jnp.expand_dims(known, axes), slopes, 0)
        size = 1 + jnp.abs(offset) + jnp.sum(slopes * (jnp.abs(shift) + jnp.abs(low) + jnp.abs(high)), axes)
        offset = offset + jnp.squeeze(shift, axes) - jnp.sum(slopes * shift, axes)
        slack = 4 * jnp.finfo(offset.dtype).eps * jax.lax.stop_gradient(size + jnp.abs(jnp.squeeze(shift, axes)))
        return Plane((slopes,), jnp.where(known, offset + outside * slack, otherwise))

    half = jnp.full(known.shape, 0.5, low.dtype)
    return Relaxed(over_leading_axes(planes, known.ndim), (half, half))
