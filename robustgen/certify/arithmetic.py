"""Interval arithmetic: the makers of rules, from which `rules.RULES` is put together.

A rule takes the equation and its operands, arrays where exact and `Interval`s where perturbed, and returns bounds of
the result. Bounds are those of real arithmetic, computed in the network's own precision without outward rounding: they
hold for float32 evaluations up to rounding. A bound that is unknown is infinite or nan, and certifies nothing.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from robustgen.certify.interpreter import Equation, Rule, UnknownPrimitive
from robustgen.core import Array, Interval

Operand = Array | Interval


def lower(operand: Operand) -> Array:
    """The lower bound of an operand; an exact one is its own."""
    return operand.lower if isinstance(operand, Interval) else operand


def upper(operand: Operand) -> Array:
    """The upper bound of an operand; an exact one is its own."""
    return operand.upper if isinstance(operand, Interval) else operand


def centre_radius(operand: Operand) -> tuple[Array, Array]:
    """(centre, radius >= 0) of an operand; the radius of an exact one is zero."""
    low, high = lower(operand), upper(operand)
    return (low + high) / 2, (high - low) / 2


def increasing(equation: Equation, *operands: Operand) -> Any:
    """Functions that are nondecreasing in every operand, several results included."""
    lows = equation.apply(*map(lower, operands))
    highs = equation.apply(*map(upper, operands))
    return _as_results([Interval(low, high) for low, high in zip(lows, highs, strict=True)])


def decreasing(equation: Equation, *operands: Operand) -> Any:
    """Functions that are nonincreasing in every operand."""
    return _as_results([Interval(v.upper, v.lower) for v in _as_list(increasing(equation, *operands))])


def increasing_from(start: float, below: float) -> Rule:
    """Functions increasing on [start, inf) and undefined below; lower bounds less than `start` give `below`."""

    def rule(equation: Equation, x: Interval) -> Interval:
        low, high = x
        (value,) = equation.apply(jnp.maximum(low, start))
        return Interval(jnp.where(low > start, value, below), equation.apply(jnp.maximum(high, start))[0])

    return rule


def decreasing_from(start: float, above: float) -> Rule:
    """Functions decreasing on (start, inf) and undefined below; lower bounds up to `start` give the upper `above`."""

    def rule(equation: Equation, x: Interval) -> Interval:
        defined = x.lower > start
        (value,) = equation.apply(jnp.where(defined, x.lower, start + 1))  # keeps derivatives finite
        return Interval(equation.apply(jnp.maximum(x.upper, start))[0], jnp.where(defined, value, above))

    return rule


def turning_at(*points: float) -> Rule:
    """Functions of one operand, extremal over an interval at its ends or at one of `points` inside."""

    def rule(equation: Equation, x: Interval) -> Interval:
        values = [equation.apply(end)[0] for end in x]
        values += [equation.apply(jnp.clip(jnp.full_like(x.lower, p), *x))[0] for p in points]
        return hull(values)

    return rule


def indexed(first: int, last: int | None = None) -> Rule:
    """Functions increasing in all operands but those from `first` to `last`, which are positions and must be exact."""

    def rule(equation: Equation, *operands: Operand) -> Any:
        if any(isinstance(index, Interval) for index in operands[first:last]):
            raise UnknownPrimitive(equation.name, "is used with positions that depend on the perturbed input")
        return increasing(equation, *operands)

    return rule


def hull(values: list[Array]) -> Interval:
    """The smallest interval around some arrays of one shape; nan where one of them is."""
    low = high = values[0]
    for value in values[1:]:
        low, high = jnp.minimum(low, value), jnp.maximum(high, value)
    return Interval(low, high)


def corners(function: Callable[[Array, Array], Array], a: Operand, b: Operand) -> Interval:
    """Bounds of a function of two operands that is monotone in each while the other is held; unbounded where it has no
    value at a corner (0 * inf)."""
    ends_a, ends_b = (v if isinstance(v, Interval) else (v,) for v in (a, b))
    values = hull([function(x, y) for x in ends_a for y in ends_b])
    return Interval(
        jnp.where(jnp.isnan(values.lower), -jnp.inf, values.lower),
        jnp.where(jnp.isnan(values.upper), jnp.inf, values.upper),
    )


def sub(equation: Equation, a: Operand, b: Operand) -> Interval:
    """a - b."""
    return Interval(equation.apply(lower(a), upper(b))[0], equation.apply(upper(a), lower(b))[0])


def mul(equation: Equation, a: Operand, b: Operand) -> Interval:
    """a * b element-wise; of a value with itself, the square."""
    if a is b:
        return turning_at(0.0)(equation._replace(apply=lambda v: equation.apply(v, v)), a)
    return corners(lambda x, y: equation.apply(x, y)[0], a, b)


def div(equation: Equation, a: Operand, b: Operand) -> Interval:
    """a / b element-wise; unbounded where b may be zero."""
    safe = (lower(b) > 0) | (upper(b) < 0)
    if isinstance(b, Interval):
        b = Interval(*(jnp.where(safe, end, 1.0) for end in b))
        safe = jnp.broadcast_to(safe, jnp.shape(b.lower))
    quotient = corners(lambda x, y: equation.apply(x, y)[0], a, b)
    return Interval(jnp.where(safe, quotient.lower, -jnp.inf), jnp.where(safe, quotient.upper, jnp.inf))


def power(equation: Equation, a: Operand, b: Operand) -> Interval:
    """a ** b for a >= 0; unbounded where a may be negative."""
    defined = lower(a) >= 0
    base = Interval(*(jnp.where(defined, end, 1.0) for end in a)) if isinstance(a, Interval) else a
    values = corners(lambda x, y: equation.apply(x, y)[0], base, b)
    return Interval(jnp.where(defined, values.lower, -jnp.inf), jnp.where(defined, values.upper, jnp.inf))


def integer_power(equation: Equation, x: Interval) -> Interval:
    """x ** y for a whole y; unbounded where y < 0 and x may be zero."""
    values = turning_at(0.0)(equation, x) if equation.params["y"] >= 0 else hull([equation.apply(v)[0] for v in x])
    if equation.params["y"] >= 0:
        return values
    safe = (x.lower > 0) | (x.upper < 0)
    return Interval(jnp.where(safe, values.lower, -jnp.inf), jnp.where(safe, values.upper, jnp.inf))


def product(equation: Equation, a: Operand, b: Operand) -> Interval:
    """Sums of products of two operands (matrix products, convolutions), in centre and radius form.

    Exact for one perturbed operand: c w +- r |w|. For two, Rump's enclosure: the radius is
    |ca| rb + ra (|cb| + rb).
    """

    def apply(x: Array, y: Array) -> Array:
        return equation.apply(x, y)[0]

    if a is b or (isinstance(a, Interval) and isinstance(b, Interval)):
        (ca, ra), (cb, rb) = centre_radius(a), centre_radius(b)
        centre, radius = apply(ca, cb), apply(jnp.abs(ca), rb) + apply(ra, jnp.abs(cb) + rb)
    elif isinstance(a, Interval):
        ca, ra = centre_radius(a)
        centre, radius = apply(ca, b), apply(ra, jnp.abs(b))
    else:
        cb, rb = centre_radius(b)
        centre, radius = apply(a, cb), apply(jnp.abs(a), rb)
    return Interval(centre - radius, centre + radius)


def periodic(crest: float) -> Rule:
    """sin and cos: 1 where a crest (`crest` + 2 pi k) lies inside the interval, -1 where a trough does."""

    def rule(equation: Equation, x: Interval) -> Interval:
        low, high = hull([equation.apply(end)[0] for end in x])
        turn = 2 * jnp.pi

        def inside(phase: float) -> Array:
            slack = 1e-3  # float32 cannot place a phase exactly: an extremum just outside is counted as inside
            return ~(jnp.floor((x.upper - phase) / turn + slack) <= jnp.floor((x.lower - phase) / turn - slack))

        return Interval(jnp.where(inside(crest + jnp.pi), -1.0, low), jnp.where(inside(crest), 1.0, high))

    return rule


def compared(true_if: Callable[..., Array], false_if: Callable[..., Array], same: bool) -> Rule:
    """Comparisons: (False, False) or (True, True) where decided, else (False, True).

    `true_if(a_low, a_high, b_low, b_high)` and `false_if` say when the ends decide; a comparison with nan decides
    nothing. `same` is the answer for a value compared with itself.
    """

    def rule(equation: Equation, a: Operand, b: Operand) -> Interval:
        if a is b:
            answer = jnp.full(jnp.shape(lower(a)), same)
            return Interval(answer, answer)
        ends = (lower(a), upper(a), lower(b), upper(b))
        shape = jnp.broadcast_shapes(jnp.shape(ends[0]), jnp.shape(ends[2]))
        return Interval(jnp.broadcast_to(true_if(*ends), shape), jnp.broadcast_to(~false_if(*ends), shape))

    return rule


def select(equation: Equation, which: Operand, *cases: Operand) -> Interval:
    """One of the cases; the hull of both where the predicate is undecided."""
    if not isinstance(which, Interval):
        return Interval(*(equation.apply(which, *map(end, cases))[0] for end in (lower, upper)))
    if which.lower.dtype != jnp.bool_:
        raise UnknownPrimitive(equation.name, "chooses among several cases by a perturbed number")
    low, high = (hull([equation.apply(w, *map(end, cases))[0] for w in which]) for end in (lower, upper))
    return Interval(low.lower, high.upper)


def _as_list(results: Any) -> list[Interval]:
    return results if isinstance(results, list) else [results]


def _as_results(results: list[Interval]) -> Any:
    return results if len(results) != 1 else results[0]
