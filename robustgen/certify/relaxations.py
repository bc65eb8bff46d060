"""The linear relaxation of each primitive, by its name: `RELAXATIONS`.

To relax a primitive of your own: `{**RELAXATIONS, "name": relaxation}`. What is linear in its perturbed operands needs
none, and what has none is bounded by the constants of interval arithmetic.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp

from robustgen.certify import bilinear
from robustgen.certify.curves import EVERYWHERE, NOWHERE, Bend, curve, shaped
from robustgen.certify.interpreter import Equation
from robustgen.certify.planes import Relaxation, maximum, minimum
from robustgen.core import Array, Interval

_POSITIVE = dict(domain=(0.0, math.inf), inside=1.0)
_UNIT = dict(domain=(-1.0, 1.0))
_TABLE = 0.01  # the distance of the tangents that auto_LiRPA tabulates


def _near_start(low: Array, high: Array) -> Array:
    """Where exp is touched: near enough to the lower end for the plane to be positive there (Shi et al. 2020)."""
    return jnp.minimum((low + high) / 2, low + 0.99)


def _integer_pow(equation: Equation, x: Interval) -> Bend:
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
    return Bend((0.0, math.inf), (-math.inf, 0.0), step=_TABLE) if y > 1 else Bend(EVERYWHERE, NOWHERE)


def _level(low: Array, high: Array) -> Array:
    """Where an even power is touched: at zero if it is inside, else in the middle."""
    return jnp.where((low < 0) & (high > 0), 0.0, (low + high) / 2)


def _tan(equation: Equation, x: Interval) -> Bend:
    centre = math.pi * jnp.round((x.lower + x.upper) / 2 / math.pi)
    domain = centre - math.pi / 2, centre + math.pi / 2
    return Bend((centre, domain[1]), (domain[0], centre), domain, inside=centre)


RELAXATIONS: Mapping[str, Relaxation] = MappingProxyType(
    {
        "max": maximum,
        "min": minimum,
        "mul": bilinear.mul,
        "square": bilinear.square,
        "reduce_max": bilinear.reduce_max,
        "reduce_min": bilinear.reduce_min,
        "select_n": bilinear.select,
        "integer_pow": curve(_integer_pow),
        "tan": curve(_tan),
    }
    | {name: shaped(convex_first=True, closest=_near_start) for name in ("exp", "exp2", "expm1")}
    | {name: shaped(convex_first=True) for name in ("cosh", "softplus", "celu")}
    | {name: shaped(convex_first=False, **_POSITIVE) for name in ("log", "log2")}
    | {
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
