"""Tangents and chords against the functions themselves, on intervals of all kinds, and against written-out formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen.certify.interpreter import trace
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.rules import WHOLE
from robustgen.core import Interval

ONE = {
    "abs": jnp.abs, "acos": jnp.arccos, "asin": jnp.arcsin, "asinh": jnp.arcsinh, "atan": jnp.arctan,
    "atanh": jnp.arctanh, "celu": jax.nn.celu, "clamp": lambda x: lax.clamp(-0.5, x, 0.75), "cos": jnp.cos,
    "cosh": jnp.cosh, "cube": lambda x: x**3, "elu": jax.nn.elu, "erf": lax.erf, "erf_inv": lax.erf_inv,
    "erfc": lax.erfc, "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "fourth": lambda x: x**4,
    "gelu": jax.nn.gelu, "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False), "hard_silu": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh, "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.25),
    "log": jnp.log, "log1p": jnp.log1p, "log2": jnp.log2, "log_sigmoid": jax.nn.log_sigmoid,
    "logaddexp": lambda x: jnp.logaddexp(x, 1.0), "logistic": jax.nn.sigmoid,
    "mish": jax.nn.mish, "pow": lambda x: x**1.5, "pow_below_1": lambda x: x**0.5,
    "pow_by": lambda x: lax.pow(jnp.asarray(0.25, x.dtype), x), "reciprocal": lambda x: lax.integer_pow(x, -1),
    "reciprocal_square": lambda x: lax.integer_pow(x, -2), "relu": jax.nn.relu,
    "relu6": jax.nn.relu6, "rsqrt": lax.rsqrt, "selu": jax.nn.selu, "silu": jax.nn.silu, "sin": jnp.sin,
    "sinh": jnp.sinh, "softplus": jax.nn.softplus, "sqrt": jnp.sqrt, "square": jnp.square,
    "steep_elu": lambda x: jax.nn.elu(x, 2.0), "steep_leaky_relu": lambda x: jax.nn.leaky_relu(x, 1.5),
    "tan": jnp.tan, "tanh": jnp.tanh,
    "where": lambda x: jnp.where(x > 0, x, 0.25 * x), "where_times": lambda x: jnp.where(x >= 0, x, x * 0.25),
}  # fmt: skip
if not hasattr(lax, "log2"):
    del ONE["log2"]  # older JAX has no such primitive and divides by log 2
GRANTED = {"pow_by": 64, "pow": 6, "pow_below_1": 6, "cosh": 6, "sinh": 6, "cube": 6, "fourth": 6, "mish": 6}
"""Rounding errors of the function's own value that a plane may be off, where it takes a power or several steps."""


def intervals() -> np.ndarray:
    """[2, N]: of every width, about zero, the inflections and elsewhere, degenerate, symmetric, huge, one-sided."""
    random = np.random.RandomState(0)
    centre = np.concatenate([random.uniform(-6, 6, 150), np.repeat([0.0, 1.4142135, -1.4142135, -2.4, 2.4, 3.0], 15)])
    half = 10 ** random.uniform(-8, 1, centre.size) * (np.arange(centre.size) % 6 > 0)
    odd = [(-1, 1), (-3, 3), (0, 0), (0, 1), (-1, 0), (-30, 30), (-1e3, 1e3), (-1e6, 1), (-1, 1e6), (1e-4, 1e5),
           (-1e-6, 1e-6), (0.2, 0.9), (-0.9, 0.5), (2, 900), (1e-30, 1e-20), (-np.inf, 1), (0, np.inf)]  # fmt: skip
    return np.concatenate([np.stack([centre - half, centre + half]), np.array(odd).T], 1)


def relaxed(fn, x: Interval):
    """(the planes by their alphas, the start) of a function that is one equation of x."""
    program = trace(fn, x.lower, WHOLE)
    (equation,) = (e for e in program.equations if program.perturbed.intersection(e.inputs))
    operands = [x if slot in program.perturbed else jnp.asarray(program.constants[slot]) for slot in equation.inputs]
    return RELAXATIONS[equation.name](equation, *operands)


@functools.cache
def sides(name: str, dtype: str) -> list[list[np.ndarray]]:
    """Slopes and offsets [4, N] below and above, at plain CROWN's alphas and at three others, compiled once."""
    x = Interval(*jnp.asarray(intervals(), dtype))

    def all_planes(low, high):
        result = relaxed(ONE[name], Interval(low, high))
        alphas = [None if s is None else jnp.stack([s, 0 * s, 0 * s + 0.35, 0 * s + 1]) for s in result.start]
        planes = result.planes(*alphas)
        return [[jnp.broadcast_to(v, (4, low.size)) for v in (side.slopes[0], side.offset)] for side in planes]

    # most of this file's time is LLVM's; only in float32 does it matter how a compiler orders what is rounded
    options = {"xla_backend_optimization_level": 0} if dtype == "float64" else None
    return [[np.asarray(v, float) for v in side] for side in jax.jit(all_planes, compiler_options=options)(*x)]


def graph(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Points [1001, N] of each interval as `dtype` has it, and the function there, computed in float64."""
    low, high = intervals().astype(dtype).astype(float)
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(low), low, -1e3), np.where(np.isfinite(high), high, 1e3)
    x = np.clip(finite[0] + np.linspace(0, 1, 1001)[:, None] * (finite[1] - finite[0]), *finite)
    with jax.enable_x64(True):
        return x, np.asarray(jax.vmap(ONE[name])(jnp.asarray(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE)
def test_planes_hold_everywhere(name, dtype):
    """All alphas. Nothing is granted but what the function's own evaluation in `dtype` is off, for a few."""
    with jax.enable_x64(dtype == "float64"):
        planes = sides(name, dtype)
    x, y = graph(name, dtype)
    defined = np.isfinite(y)
    with np.errstate(all="ignore"):
        granted = GRANTED.get(name, 0) * np.finfo(dtype).eps * np.abs(y) + np.finfo(dtype).tiny
        if name == "relu":  # its chord is not moved outward, so that networks of relus have the textbook's bounds
            granted = granted + np.finfo(dtype).eps * (np.abs(x[0]) + np.abs(x[-1]))
        for sign, (slope, offset) in zip((1, -1), planes, strict=True):
            assert not np.isnan(slope).any() and not np.isnan(offset).any()
            for k, c in zip(slope, offset, strict=True):
                over = np.where(defined, (np.where(k == 0, 0, k * x) + c - y) * sign - granted, -1)
                worst = np.unravel_index(np.argmax(over), over.shape)
                assert over[worst] <= 0, (sign, over[worst], intervals()[:, worst[1]], x[worst])


@pytest.mark.parametrize("name", ONE)
def test_start_is_not_looser_than_constants_and_exact_on_a_point(name):
    with jax.enable_x64(True):
        lower, upper = [[v[0] for v in side] for side in sides(name, "float64")]
    x, y = graph(name, "float64")
    with np.errstate(all="ignore"):
        gap = np.mean(upper[0] * x + upper[1] - lower[0] * x - lower[1], 0)
        range_ = y.max(0) - y.min(0)
        if name in ("sin", "cos"):
            range_ = np.where(x[-1] - x[0] >= 2 * np.pi, 2.0, range_)  # over many periods the points miss crests
    fine = np.isfinite(y).all(0) & np.isfinite(intervals()).all(0) & np.isfinite(gap)
    size = 1 + np.abs(y).max(0) + np.abs(lower[0] * x).max(0)
    assert fine.sum() > 40
    assert np.all((gap <= range_ * (1 + 1e-4) + 1e-12 * size)[fine])
    point = fine & (x[0] == x[-1])
    assert point.sum() >= 5 and np.all(gap[point] <= 1e-13 * size[point])


def test_relu_with_infinite_ends():
    """The line above that is still known: x - l without an upper end, the constant u without a lower one."""
    inf, most = np.inf, float(jnp.finfo(jnp.float32).max)
    ends = [(-inf, 2), (-1, inf), (-inf, inf), (np.nan, 2), (-1, np.nan), (-inf, -1), (3, inf), (-most, most)]

    def planes(x: Interval):
        result = relaxed(jax.nn.relu, x)
        lower, upper = result.planes(*result.start)
        return lower.slopes[0], lower.offset, upper.slopes[0], upper.offset

    x = Interval(*jnp.asarray(ends, jnp.float32).T)
    below, base, above, offset = planes(x)
    np.testing.assert_array_equal(above, [0, 1, 0, 0, 1, 0, 1, 1])
    np.testing.assert_allclose(offset, [2, 1, inf, 2, 1, 0, 0, most])
    assert np.isfinite(below).all() and not base.any()
    for number in range(4):
        gradient = jax.grad(lambda x, number=number: jnp.sum(planes(x)[number]))(x)
        assert np.isfinite(gradient.lower).all() and np.isfinite(gradient.upper).all()


def tangent_point(fn, slope, at: float) -> float:
    """By bisection: the last point below zero whose tangent is below fn at `at` (auto_LiRPA's `d_lower`)."""
    low, high = -1.0, 0.0
    while slope(low) * (at - low) + fn(low) > fn(at):
        low *= 2
    for _ in range(100):
        middle = (low + high) / 2
        below = slope(middle) * (at - middle) + fn(middle) <= fn(at)
        low, high = (middle, high) if below else (low, middle)
    return low


def s_shaped(fn, slope, low: float, high: float) -> tuple[float, float]:
    """(slope, offset) below an s-shaped function in auto_LiRPA 0.7.1 (operators/s_shaped.py), smoothness enhancement
    included: chord where concave or where the tangent at the lower end is steeper; else the tangent at the middle or
    the tabulated point, whichever is first."""
    chord, middle = (fn(high) - fn(low)) / (high - low), (low + high) / 2
    if low >= 0 or (high > 0 and chord < slope(low)):
        return chord, fn(low) - chord * low
    point = middle if high <= 0 else min(middle, tangent_point(fn, slope, 0.01 * (int(high / 0.01) + 1)))
    return slope(point), fn(point) - slope(point) * point


S_SHAPED = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), lambda x: 1 / (2 + np.exp(x) + np.exp(-x))),
    "atan": (np.arctan, lambda x: 1 / (1 + x * x)),
}


@pytest.mark.parametrize("name", S_SHAPED)
def test_start_of_s_shaped_functions_is_that_of_auto_lirpa(name, x64):
    fn, slope = S_SHAPED[name]
    random = np.random.RandomState(1)
    low = random.uniform(-6, 2, 150)
    high = low + random.uniform(0.01, 8, 150)
    result = relaxed(ONE[name], Interval(jnp.asarray(low), jnp.asarray(high)))
    planes = result.planes(*result.start)
    twice = 2 * fn(0.0)  # the function is odd about (0, fn(0)), so the upper plane is the lower one of its image
    for i in range(low.size):
        below, above = s_shaped(fn, slope, low[i], high[i]), s_shaped(fn, slope, -high[i], -low[i])
        np.testing.assert_allclose([planes.lower.slopes[0][i], planes.lower.offset[i]], below, rtol=0, atol=1e-9)
        above = above[0], twice - above[1]
        np.testing.assert_allclose([planes.upper.slopes[0][i], planes.upper.offset[i]], above, rtol=0, atol=1e-9)


LOW, HIGH = np.array([0.5, 1.0, 2.0, 0.25]), np.array([0.75, 4.0, 2.5, 9.0])
FORMULAS = {  # slope and touching point of the curved side in auto_LiRPA 0.7.1 (operators/convex_concave.py)
    "exp": ("lower", np.exp, np.exp, lambda low, high: np.minimum((low + high) / 2, low + 0.99)),
    "log": ("upper", np.log, lambda x: 1 / x, lambda low, high: (low + high) / 2),
    "sqrt": ("upper", np.sqrt, lambda x: 0.5 / np.sqrt(x), lambda low, high: (low + high) / 2),
    "reciprocal": ("lower", lambda x: 1 / x, lambda x: -1 / x**2, lambda low, high: (low + high) / 2),
    "square": ("lower", np.square, lambda x: 2 * x, lambda low, high: low),
    "fourth": ("lower", lambda x: x**4, lambda x: 4 * x**3, lambda low, high: (low + high) / 2),
    "pow": ("lower", lambda x: x**1.5, lambda x: 1.5 * np.sqrt(x), lambda low, high: (low + high) / 2),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_start_of_convex_and_concave_functions(name, x64):
    curved, fn, slope, touching = FORMULAS[name]
    result = relaxed(ONE[name], Interval(jnp.asarray(LOW), jnp.asarray(HIGH)))
    planes = result.planes(*result.start)
    point = touching(LOW, HIGH)
    chord = (fn(HIGH) - fn(LOW)) / (HIGH - LOW)
    tangent = slope(point), fn(point) - slope(point) * point
    straight = chord, fn(LOW) - chord * LOW
    for found, expected in zip(planes, (tangent, straight) if curved == "lower" else (straight, tangent), strict=True):
        np.testing.assert_allclose(found.slopes[0], expected[0], rtol=1e-11)
        np.testing.assert_allclose(found.offset, expected[1], rtol=1e-10, atol=1e-12)


def test_pieces_start_as_in_auto_lirpa(x64):
    box = Interval(jnp.array([-1.0, -3.0, 0.5]), jnp.array([2.0, 1.0, 2.0]))
    leaky = relaxed(ONE["leaky_relu"], box)
    np.testing.assert_allclose(leaky.planes(*leaky.start).lower.slopes[0], [1.0, 0.25, 1.0])
    hard = relaxed(ONE["hard_tanh"], box)
    planes = hard.planes(*hard.start)
    np.testing.assert_allclose(planes.lower.slopes[0], [2 / 3, 0.0, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(planes.upper.slopes[0], [1.0, 0.5, 0.0], atol=1e-12)
    size = relaxed(ONE["abs"], box)
    np.testing.assert_allclose(size.planes(*size.start).lower.slopes[0], [0.0, 0.0, 1.0])


@pytest.mark.parametrize("name", ["tanh", "gelu", "sqrt", "sin", "exp", "leaky_relu", "reciprocal", "clamp", "log"])
def test_gradients_are_finite(name):
    moderate = intervals()[:, intervals()[1] != 1e-20]  # derivatives of its slopes are beyond float32: see `curves`
    low, high = (jnp.asarray(v, jnp.float32) for v in moderate)

    def total(low, high, shift):
        result = relaxed(ONE[name], Interval(low, high))
        alphas = [None if s is None else jnp.clip(s + shift, 0, 1) for s in result.start]
        planes = result.planes(*alphas)
        parts = (planes.lower.slopes[0], planes.lower.offset, planes.upper.slopes[0], planes.upper.offset)
        return sum(jnp.sum(jnp.where(jnp.isfinite(part), part, 0)) for part in parts)

    for gradient in jax.jit(jax.grad(total, (0, 1, 2)))(low, high, jnp.float32(-0.1)):
        assert not np.isnan(gradient).any()


def test_alphas_of_several_rows():
    """Leading axes of the alphas are rows of planes; the other side gets them too."""
    x = Interval(jnp.array([-1.0, 0.5]), jnp.array([2.0, 1.0]))
    result = relaxed(jnp.tanh, x)
    rows = jnp.stack([jnp.zeros(2), jnp.ones(2), result.start[0]])
    many = result.planes(rows, result.start[1])
    for row, alpha in enumerate(rows):
        one = result.planes(alpha, result.start[1])
        jax.tree.map(lambda a, b, row=row: np.testing.assert_allclose(a[row], b, rtol=1e-6), many, one)
