"""Linear relaxations of functions of one variable that bend at known places: chords and tangents.

Below a function, on an interval, go the tangents of the part where it is convex, from the one that meets the left end
of the interval to the one that meets the right end; where there is none, the chord. Above it, the same of its negative.
That is the convex hull of the graph, so no line between two planes is lost. What the formulas call a bound is checked
at both ends of the interval and moved outward by a few rounding errors, so that a tangent point which is not exact
costs tightness and never soundness. In float32 that does not cover a compiler whose approximation of the function, or
of its derivative where it saturates, is off by more; what `sound` certifies is computed in float64. Gradients of planes
are nan where a derivative of a slope is beyond the dtype, as those of 1 / x on (1e-30, 1e-20) are in float32.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.interpreter import Equation
from robustgen.certify.planes import Operand, Plane, Planes, Relaxation, Relaxed, constant
from robustgen.certify.rules import RULES
from robustgen.core import Array, Interval

Fn = Callable[[Array], Array]
NOWHERE = (math.inf, -math.inf)
EVERYWHERE = (-math.inf, math.inf)
_ITERATIONS = 24


class Bend(NamedTuple):
    """How a function bends over an interval [l, u].

    convex, concave     the parts (from, to), at most one of each, whose tangents are looked for; where it bends
                        otherwise it must lie on the right side of them anyway
    domain              the open interval on which it is defined and smooth; beyond it the planes are constant
    inside              a point of the domain
    closest             where the tangent of plain CROWN touches, if not in the middle: a function of (l, u)
    step                plain CROWN takes the end of the interval, seen from the inflection, to the next multiple of it,
                        unless the interval is narrower
    noise               how far a computed value may be off, beside its own rounding, in rounding errors of x
    """

    convex: tuple[float | Array, float | Array]
    concave: tuple[float | Array, float | Array]
    domain: tuple[float | Array, float | Array] = EVERYWHERE
    inside: float | Array = 0.5
    closest: Callable[[Array, Array], Array] | None = None
    step: float | None = None
    noise: float = 0.0


def curve(bend: Callable[..., Bend]) -> Relaxation:
    """The relaxation of a function of one perturbed operand: `bend(equation, x, *other operands)` tells its shape."""

    def relaxation(equation: Equation, *operands: Operand) -> Relaxed:
        moved = [i for i, operand in enumerate(operands) if isinstance(operand, Interval)]
        fallback = RULES[equation.name](equation, *operands)
        if len(moved) != 1:
            return constant(fallback, operands)
        (place,) = moved

        def fn(value: Array) -> Array:
            return equation.apply(*operands[:place], value, *operands[place + 1 :])[0]

        x = operands[place]
        return relaxed(fn, x, bend(equation, x, *operands[:place], *operands[place + 1 :]), fallback)

    return relaxation


def shaped(*places: float, convex_first: bool, **rest) -> Relaxation:
    """The relaxation of a function that is convex and concave in turn between the inflections `places`, at most two.

    With two inflections it must be concave outside: see `bends`.
    """
    return curve(lambda equation, x, *others: bends(x, places, convex_first)._replace(**rest))


def bends(x: Interval, places: Sequence[float], convex_first: bool = False) -> Bend:
    """How a function bends that turns at `places`. With two, it is concave left of the first, where its slopes are
    negative, and right of the second, where they are at least 1: then a tangent of one side is above the other side."""
    if not places:
        return Bend(EVERYWHERE, NOWHERE) if convex_first else Bend(NOWHERE, EVERYWHERE)
    if len(places) == 1:
        left, right = (-math.inf, places[0]), (places[0], math.inf)
        return Bend(left, right) if convex_first else Bend(right, left)
    right = x.lower + x.upper > places[0] + places[1]
    return Bend(tuple(places), (jnp.where(right, places[1], -jnp.inf), jnp.where(right, jnp.inf, places[0])))


def relaxed(fn: Fn, x: Interval, bend: Bend, fallback: Interval) -> Relaxed:
    """All the planes of `fn` over `x`; constant ones, `fallback`, where an end of it or a value there is infinite."""
    known = jnp.isfinite(x.lower) & jnp.isfinite(x.upper) & (x.lower > bend.domain[0]) & (x.upper < bend.domain[1])
    inner = Interval(*(jnp.where(known, end, bend.inside) for end in x))
    for end in inner:
        known &= jnp.isfinite(fn(end)) & jnp.isfinite(slope_of(fn)(end))
    inner = Interval(*(jnp.where(known, end, bend.inside) for end in inner))
    fallback = outward(fallback)
    below, start_below = _under(fn, inner, bend.convex, bend)
    above, start_above = _under(lambda v: -fn(v), inner, bend.concave, bend)

    def planes(alpha_lower: Array, alpha_upper: Array) -> Planes:
        lower, upper = below(alpha_lower), above(alpha_upper)
        return Planes(
            Plane((jnp.where(known, lower[0], 0),), jnp.where(known, lower[1], fallback.lower)),
            Plane((jnp.where(known, -upper[0], 0),), jnp.where(known, -upper[1], fallback.upper)),
        )

    return Relaxed(over_leading_axes(planes, x.lower.ndim), (start_below, start_above))


def outward(interval: Interval) -> Interval:
    """An interval a few rounding errors wider, unbounded where it is not known."""
    interval = jax.lax.stop_gradient(interval)  # a rule's derivative may be infinite where its value is not used
    low, high = (jnp.where(jnp.isnan(end), limit, end) for end, limit in zip(interval, EVERYWHERE, strict=True))
    low, high = (jnp.where(low == jnp.inf, -jnp.inf, low), jnp.where(high == -jnp.inf, jnp.inf, high))
    error = 4 * jnp.finfo(low.dtype).eps
    return Interval(low - error * jnp.abs(low), high + error * jnp.abs(high))


def over_leading_axes(planes: Callable[..., Planes], ndim: int) -> Callable[..., Planes]:
    """The same for alphas that have leading axes more than the result's `ndim`."""

    def mapped(alpha_lower: Array | None, alpha_upper: Array | None) -> Planes:
        alphas = (alpha_lower, alpha_upper)
        axes = tuple(0 if a is not None and a.ndim > ndim else None for a in alphas)
        return planes(*alphas) if axes == (None, None) else jax.vmap(mapped, axes)(*alphas)

    return mapped


def slope_of(fn: Fn) -> Fn:
    """The derivative of an element-wise function."""
    return lambda v: jax.jvp(fn, (v,), (jnp.ones_like(v),))[1]


def _under(fn: Fn, x: Interval, part: tuple, bend: Bend) -> tuple[Callable[[Array], tuple[Array, Array]], Array]:
    """(slope, offset) of the planes below `fn`, by their alpha, and the alpha of plain CROWN."""
    first, last, touching = _touching_points(fn, x, part, bend.step)
    chord = _chord_slope(fn, x, part)
    middle = (x.lower + x.upper) / 2
    target = bend.closest(*x) if bend.closest else middle
    width = jnp.where(touching & (first != last), last - first, 1.0)
    start = jnp.where(width > 0, jnp.clip((target - first) / width, 0, 1), 0.0 if _is_infinite(part[1]) else 1.0)
    points = jnp.where(touching, first, middle), jnp.where(touching, last, middle)

    def plane(alpha: Array) -> tuple[Array, Array]:
        point = points[0] + alpha * (points[1] - points[0])
        value, tangent = jax.jvp(fn, (point,), (jnp.ones_like(point),))
        slope = jnp.where(touching, tangent, chord)
        ends = jnp.minimum(*(fn(end) - slope * end for end in x))
        offset = jnp.where(touching, jnp.minimum(ends, value - slope * point), ends)
        return slope, offset - _rounding(fn, x, slope, bend.noise)

    return plane, jax.lax.stop_gradient(start).astype(x.lower.dtype)


def _rounding(fn: Fn, x: Interval, slope: Array, noise: float) -> Array:
    """A few rounding errors of the numbers that an offset is made of."""
    size = sum(jnp.abs(fn(end)) + (noise + jnp.abs(slope)) * jnp.abs(end) for end in x)
    return 4 * jnp.finfo(slope.dtype).eps * jax.lax.stop_gradient(size)


def _chord_slope(fn: Fn, x: Interval, part: tuple) -> Array:
    """The slope of the chord, held between slopes of the function, where rounding of a narrow interval would tell."""
    low, high = x
    wide = high > low
    chord = (fn(high) - fn(low)) / jnp.where(wide, high - low, 1.0)
    places = [low, high, *(jnp.clip(p, low, high) for p in part if not _is_infinite(p))]
    slopes = [slope_of(fn)(place) for place in places]
    least, most = (functools.reduce(f, slopes) for f in (jnp.minimum, jnp.maximum))
    return jnp.where(wide, jnp.clip(chord, least, most), slopes[0])


def _is_infinite(bound: float | Array) -> bool:
    return isinstance(bound, float) and math.isinf(bound)


def _touching_points(fn: Fn, x: Interval, part: tuple, step: float | None) -> tuple[Array, Array, Array]:
    """The first and last point of the convex part whose tangents lie below `fn` over x, and whether there are any."""
    low, high = x
    begin, end = jnp.maximum(low, part[0]), jnp.minimum(high, part[1])
    touching = begin <= end
    begin, end = jnp.where(touching, begin, low), jnp.where(touching, end, high)
    first, last = begin, end
    if not _is_infinite(part[1]):
        ahead = _tabulated(high, part[1], step, x)
        beyond = high > part[1]
        touching &= ~(beyond & (_gap(fn, high)(begin) > 0))
        last = jnp.where(beyond, _root(_gap(fn, ahead), begin - (step or 0), end), end)
    if not _is_infinite(part[0]):
        back = _tabulated(low, part[0], step and -step, x)
        beyond = low < part[0]
        touching &= ~(beyond & (_gap(fn, low)(end) > 0))
        first = jnp.where(beyond, _root(_gap(fn, back), end + (step or 0), begin), begin)
    if not _is_infinite(part[0]) and not _is_infinite(part[1]):
        touching &= first <= last
    return first, last, touching


def _tabulated(end: Array, inflection: float | Array, step: float | None, x: Interval) -> Array:
    """The next multiple of `step`, seen from the inflection, beyond an end of x; that end itself for an x not as wide
    as a step, where planes through a place so far outside may be looser than constants."""
    if step is None:
        return end
    next_ = inflection + step * (jnp.floor((end - inflection) / step) + 1)
    return jnp.where(x.upper - x.lower < abs(step), end, next_)


def _gap(fn: Fn, at: Array) -> Fn:
    """By how much the tangent at a point lies above `fn` at the place `at`."""

    def gap(point: Array) -> Array:
        value, slope = jax.jvp(fn, (point,), (jnp.ones_like(point),))
        return value + slope * (at - point) - fn(at)

    at = jax.lax.stop_gradient(at)
    return gap


def _root(gap: Fn, under: Array, over: Array) -> Array:
    """The point between `under`, where gap <= 0, and `over`, where gap >= 0, at which it is zero.

    Newton's method inside a bracket, which is halved, in the logarithm where it is long, when a step leaves it.
    """
    under, origin = jax.lax.stop_gradient((under, over))

    def halved(under: Array, over: Array) -> Array:
        far, near = (jnp.log1p(jnp.abs(end - origin)) for end in (under, over))
        return origin + jnp.sign(under - origin) * jnp.expm1((near + far) / 2)

    def improve(_: int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        under, over, point = state
        value, slope = jax.jvp(gap, (point,), (jnp.ones_like(point),))
        under, over = jnp.where(value <= 0, point, under), jnp.where(value <= 0, over, point)
        newton = point - value / jnp.where(slope == 0, 1.0, slope)
        inside = (slope != 0) & (newton >= jnp.minimum(under, over)) & (newton <= jnp.maximum(under, over))
        return under, over, jnp.where(inside, newton, halved(under, over))

    return jax.lax.fori_loop(0, _ITERATIONS, improve, (under, origin, halved(under, origin)))[2]
