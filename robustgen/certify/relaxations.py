"""The linear relaxation of each primitive, by its name: `RELAXATIONS`.

To relax a primitive of your own: `{**RELAXATIONS, "name": relaxation}`. What is linear in its perturbed operands needs
none, and what has none is bounded by the constants of interval arithmetic.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp

from robustgen.certify import bilinear, pieces
from robustgen.certify.curves import EVERYWHERE, NOWHERE, Bend, bends, curve, shaped
from robustgen.certify.interpreter import Equation
from robustgen.certify.planes import Operand, Relaxation, Relaxed, maximum, minimum
from robustgen.core import Array, Interval

_POSITIVE = dict(domain=(0.0, math.inf), inside=1.0)
_UNIT = dict(domain=(-1.0, 1.0))
_TINY = 1e-30
_TABLE = 0.01  # the distance of the tangents that auto_LiRPA tabulates; taken over where no net suffers from it


def _near_start(low: Array, high: Array) -> Array:
    """Where exp is touched: near enough to the lower end for the plane to be positive there (Shi et al. 2020)."""
    return jnp.minimum((low + high) / 2, low + 0.99)


def _integer_pow(equation: Equation, x: Interval) -> Relaxed:
    """x ** y for a whole y. The square is touched where `bilinear.square` says: variances stay positive. auto_LiRPA
    does so for x * x alone."""
    return bilinear.square(equation, x) if equation.params["y"] == 2 else curve(_whole_power)(equation, x)


def _whole_power(equation: Equation, x: Interval) -> Bend:
    y = equation.params["y"]
    if y < 0:
        positive = x.lower > 0
        domain = jnp.where(positive, 0.0, -jnp.inf), jnp.where(positive, jnp.inf, 0.0)
        inside = jnp.where(positive, 1.0, -1.0)
        if y % 2 == 0:
            return Bend(EVERYWHERE, NOWHERE, domain, inside)
        begin, end = jnp.where(positive, -jnp.inf, jnp.inf), jnp.where(positive, jnp.inf, -jnp.inf)
        return Bend((begin, end), (-begin, -end), domain, inside)
    if y % 2 == 0:
        return Bend(EVERYWHERE, NOWHERE, closest=_level)
    return Bend((0.0, math.inf), (-math.inf, 0.0)) if y > 1 else Bend(EVERYWHERE, NOWHERE)


def _level(low: Array, high: Array) -> Array:
    """Where an even power is touched: at zero if it is inside, else in the middle."""
    return jnp.where((low < 0) & (high > 0), 0.0, (low + high) / 2)


def _power(equation: Equation, base: Operand, exponent: Operand) -> Relaxed:
    """base ** exponent, one of them exact, for a base above zero."""
    if isinstance(base, Interval) and not isinstance(exponent, Interval):
        return curve(_exponent)(equation, base, exponent)
    return curve(lambda equation, x, base: Bend(EVERYWHERE, NOWHERE))(equation, base, exponent)


def _exponent(equation: Equation, x: Interval, exponent: Array) -> Bend:
    convex = (exponent >= 1) | (exponent <= 0)
    begin = jnp.where(convex, -jnp.inf, jnp.inf)
    return Bend((begin, -begin), (-begin, begin), **_POSITIVE)


def _sine(crest: float) -> Relaxation:
    """sin and cos, between a trough and a crest or two; constant over a whole period."""

    def bend(equation: Equation, x: Interval) -> Bend:
        middle, turn = (x.lower + x.upper) / 2, 2 * math.pi
        top, bottom = (phase + turn * jnp.round((middle - phase) / turn) for phase in (crest, crest + math.pi))
        begin = jnp.where(x.upper - x.lower < turn, -jnp.inf, jnp.inf)
        around = [(centre - math.pi / 2, centre + math.pi / 2) for centre in (bottom, top)]
        return Bend(*around, domain=(begin, math.inf))

    return curve(bend)


def _elu(equation: Equation, x: Interval, *scale: Array) -> Bend:
    """Convex, unless its scale is above 1, which makes a kink at zero."""
    if not scale:
        return Bend(EVERYWHERE, NOWHERE)
    smooth = scale[0] <= 1
    return Bend(
        (-math.inf, jnp.where(smooth, jnp.inf, 0.0)),
        (jnp.where(smooth, jnp.inf, _TINY), jnp.where(smooth, -jnp.inf, jnp.inf)),
    )


def _tan(equation: Equation, x: Interval) -> Bend:
    centre = math.pi * jnp.round((x.lower + x.upper) / 2 / math.pi)
    domain = centre - math.pi / 2, centre + math.pi / 2
    return Bend((centre, math.inf), (-math.inf, centre), domain, inside=centre)


def _gelu(equation: Equation, x: Interval) -> Bend:
    bend = 1.4185040087908287 if equation.params["approximate"] else math.sqrt(2)
    return bends(x, (-bend, bend))._replace(noise=1.0)  # 1 + tanh of far negative numbers is all rounding


def _hard_silu(equation: Equation, x: Interval) -> Bend:
    """The kinks are left out of the parts: a derivative there would be that of either side."""
    return bends(x, (-3.0, 3.0))._replace(convex=(-2.99999, 2.99999))


RELAXATIONS: Mapping[str, Relaxation] = MappingProxyType(
    {
        "max": maximum,
        "min": minimum,
        "mul": bilinear.mul,
        "square": bilinear.square,
        "reduce_max": bilinear.reduce_max,
        "reduce_min": bilinear.reduce_min,
        "select_n": bilinear.select,
        "logsumexp": bilinear.logsumexp,
        "abs": pieces.absolute,
        "leaky": pieces.two_pieces,
        "leaky_relu": pieces.two_pieces,
        "relu6": pieces.ramp(0.0, 6.0),
        "hard_tanh": pieces.ramp(-1.0, 1.0),
        "clamp": pieces.clamp,
        "sqrt": pieces.sqrt,
        "stop_gradient": pieces.identity,
        "integer_pow": _integer_pow,
        "pow": _power,
        "sin": _sine(math.pi / 2),
        "cos": _sine(0.0),
        "elu": curve(_elu),
        "selu": curve(lambda equation, x: Bend((-math.inf, 0.0), (_TINY, math.inf))),
        "gelu": curve(_gelu),
        "hard_silu": curve(_hard_silu),
        "tan": curve(_tan),
    }
    | {name: shaped(convex_first=True, closest=_near_start) for name in ("exp", "exp2", "expm1")}
    | {name: shaped(convex_first=True) for name in ("cosh", "softplus", "celu", "logaddexp")}
    | {name: shaped(convex_first=False, **_POSITIVE) for name in ("log", "log2")}
    | {
        "log_sigmoid": shaped(convex_first=False),
        "mish": shaped(-2.256376396360793, 1.4905711794854288, convex_first=False),
        "log1p": shaped(convex_first=False, domain=(-1.0, math.inf)),
        "rsqrt": shaped(convex_first=True, **_POSITIVE),
        "logistic": shaped(0.0, convex_first=True, step=_TABLE),
        "tanh": shaped(0.0, convex_first=True, step=_TABLE),
        "atan": shaped(0.0, convex_first=True, step=_TABLE),
        "erf": shaped(0.0, convex_first=True),
        "erfc": shaped(0.0, convex_first=False),
        "asinh": shaped(0.0, convex_first=True),
        "sinh": shaped(0.0, convex_first=False),
        "asin": shaped(0.0, convex_first=False, **_UNIT),
        "acos": shaped(0.0, convex_first=True, **_UNIT),
        "atanh": shaped(0.0, convex_first=False, **_UNIT),
        "erf_inv": shaped(0.0, convex_first=False, **_UNIT),
        "silu": shaped(-2.3993572805154675, 2.3993572805154675, convex_first=False),
    }
)
