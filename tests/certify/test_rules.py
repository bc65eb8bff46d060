"""Every rule against values sampled inside the box: nothing outside the bounds, and no slack where none is owed."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen.certify import RULES, bound
from robustgen.certify.interpreter import trace
from robustgen.certify.rules import WHOLE
from robustgen.core import Interval

W = np.random.RandomState(0).randn(6, 6)
IMAGE = np.random.RandomState(1).randn(2, 3, 2)
KERNEL = np.random.RandomState(2).randn(3, 2, 4)


def conv1d(x, w, **options):
    return lax.conv_general_dilated(x, w, dimension_numbers=("NWC", "WIO", "NWC"), **options)


def window_sum(x):
    return lax.reduce_window(x, 0.0, lax.add, (3,), (1,), "SAME")


# functions that each value of the result depends on each entry of x at most once: their bounds have no slack
EXACT = {
    "abs": jnp.abs, "acos": lambda x: jnp.arccos(x / 4), "acosh": lambda x: jnp.arccosh(x + 4),
    "add": lambda x: x + W[0], "argument_of_sub": lambda x: W[0] - x, "asin": lambda x: jnp.arcsin(x / 4),
    "asinh": jnp.arcsinh, "atan": jnp.arctan, "atanh": lambda x: jnp.arctanh(x / 4), "cbrt": jnp.cbrt,
    "ceil": jnp.ceil, "celu": jax.nn.celu, "clamp": lambda x: lax.clamp(-0.5, x, 0.7),
    "concatenate": lambda x: jnp.concatenate([x, x[:2]]), "convert": lambda x: x.astype(jnp.float32),
    "cos": jnp.cos, "cosh": jnp.cosh, "copy": jnp.copy, "cummax": lax.cummax, "cummin": lax.cummin,
    "cumsum": jnp.cumsum, "cumlogsumexp": lax.cumlogsumexp, "div": lambda x: x / W[0], "div_by": lambda x: 1 / (x + 4),
    "dot": lambda x: W @ x, "dot_left": lambda x: x @ W, "dynamic_slice": lambda x: lax.dynamic_slice(x, (2,), (3,)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, 2 * x[:2], (3,)), "elu": jax.nn.elu, "erf": lax.erf,
    "erf_inv": lambda x: lax.erf_inv(x / 4), "erfc": lax.erfc, "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1,
    "floor": jnp.floor, "gather": lambda x: x[jnp.array([4, 1])], "integer_pow": lambda x: x**3,
    "even_pow": lambda x: x**4, "reciprocal": lambda x: (x + 4) ** -2, "leaky_relu": jax.nn.leaky_relu,
    "leaky": lambda x: jnp.where(x > 0, x, 0.25 * x), "log_sigmoid": jax.nn.log_sigmoid,
    "log_softmax": jax.nn.log_softmax, "relu6": jax.nn.relu6,
    "hard_silu": jax.nn.hard_silu, "hard_tanh": jax.nn.hard_tanh,
    "log": lambda x: jnp.log(x + 4), "log1p": lambda x: jnp.log1p(x / 4), "log2": lambda x: jnp.log2(x + 4),
    "logistic": jax.nn.sigmoid, "max": lambda x: jnp.maximum(x, 0.3), "min": lambda x: jnp.minimum(x, x[::-1] + 9),
    "mul": lambda x: x * W[0], "neg": lambda x: -x, "outer": lambda x: jnp.outer(x, x[::-1])[:2, :2],
    "pad": lambda x: jnp.pad(x, 1, constant_values=0.5), "pow": lambda x: (x + 4.0) ** 1.7,
    "pow_by": lambda x: lax.pow(jnp.asarray(0.3, x.dtype), x), "reduce_max": jnp.max, "reduce_min": jnp.min,
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 10), "reduce_sum": jnp.sum,
    "reduce_window_max": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (3,), (2,), "SAME"),
    "reduce_window_min": lambda x: lax.reduce_window(x, jnp.inf, lax.min, (2,), (1,), "VALID"),
    "reduce_window_sum": window_sum, "reshape": lambda x: x.reshape(2, 3).T, "rev": lambda x: x[::-1],
    "round": jnp.round, "rsqrt": lambda x: lax.rsqrt(x + 4), "scatter": lambda x: x.at[1].set(0.4),
    "scatter_add": lambda x: x.at[jnp.array([1, 1])].add(x[3]), "scatter_max": lambda x: x.at[2].max(0.1),
    "scatter_min": lambda x: x.at[2].min(0.1), "select_n": lambda x: jnp.where(W[0] > 0, x, -x), "selu": jax.nn.selu,
    "sign": jnp.sign, "silu": jax.nn.silu, "sin": jnp.sin, "sinh": jnp.sinh, "softplus": jax.nn.softplus,
    "sort": jnp.sort, "split": lambda x: jnp.split(x, [2, 4])[1], "sqrt": lambda x: jnp.sqrt(x + 4),
    "square": jnp.square, "squared": lambda x: x * x, "squeeze": lambda x: lax.squeeze(x[None], (0,)),
    "stop_gradient": lax.stop_gradient, "tan": lambda x: jnp.tan(x / 3), "tanh": jnp.tanh,
    "logsumexp_kept": lambda x: jax.nn.logsumexp(x, 0, keepdims=True),
    "broadcast": lambda x: x[:, None] + jnp.zeros((6, 2)), "optimization_barrier": lax.optimization_barrier,
    "relu": jax.nn.relu, "jit": jax.jit(lambda x: jnp.exp(x)), "remat": jax.checkpoint(lambda x: jnp.exp(x)),
    "scan": lambda x: lax.scan(lambda c, a: (c + a[0] * a[1], c), 0.0, (x, W[0]), reverse=True)[1],
    "cond": lambda x: lax.cond(jnp.sum(W) > 0, jnp.tanh, jnp.exp, x),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, v: v.at[i].set(2 * v[i]), x),
}  # fmt: skip

# functions that need more than interval arithmetic for tight bounds: sound, not tight
LOOSE = {
    "gt": lambda x: jnp.where(x > 0.1, x, 2 * x), "ge": lambda x: jnp.where(x >= x[::-1], x, 1.0),
    "lt": lambda x: (x < 0.2).astype(x.dtype), "le": lambda x: (x <= x[0]).astype(x.dtype),
    "eq": lambda x: (jnp.floor(x) == 0).astype(x.dtype), "ne": lambda x: (jnp.ceil(x) != x).astype(x.dtype),
    "and_or_not": lambda x: (((x > 0) & (x < 0.5)) | ~(x > -0.5)).astype(x.dtype),
    "any_all": lambda x: (jnp.any(x > 0.3) | jnp.all(x > -1)).astype(x.dtype),
    "is_finite": lambda x: jnp.isfinite(x).astype(x.dtype), "gelu": jax.nn.gelu, "softmax": jax.nn.softmax,
    "logsumexp": jax.nn.logsumexp, "norm": lambda x: x / jnp.sqrt(1 + jnp.sum(x * x)), "bilinear": lambda x: x @ W @ x,
    "div_both": lambda x: x / (4 + x[::-1]), "var": jnp.var, "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "residual": lambda x: x + jax.nn.relu(W @ x),
    "attention": lambda x: jax.nn.softmax(x.reshape(2, 3) @ x.reshape(3, 2)),
    "logaddexp": lambda x: jnp.logaddexp(x, x[::-1]), "mish": jax.nn.mish, "pow_both": lambda x: (x + 4) ** x[::-1],
}  # fmt: skip


def sampled(box: Interval, count: int, seed: int = 0) -> np.ndarray:
    """Points of the box: uniform ones, and as many of its corners."""
    random = np.random.RandomState(seed)
    share = random.uniform(size=(count, *box.lower.shape))
    share[count // 2 :] = np.round(share[count // 2 :])
    share[:2] = np.array([0.0, 1.0]).reshape(2, *(1,) * box.lower.ndim)
    return np.asarray(box.lower) + share * (np.asarray(box.upper) - np.asarray(box.lower))


def extremes(fn, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(jax.jit(jax.vmap(fn))(jnp.asarray(points))).astype(float)
    return values.min(0), values.max(0)


def boxes(seed: int):
    random = np.random.RandomState(seed)
    for width in (0.0, 0.05, 0.6, 3.0):
        centre = random.uniform(-1, 1, 6)
        half = width * random.uniform(0, 0.5, 6)
        yield Interval(jnp.asarray(centre - half), jnp.asarray(centre + half))


def assert_sound(bounds: Interval, fn, box: Interval, count: int = 1000, tolerance: float = 1e-9) -> None:
    low, high = extremes(fn, sampled(box, count))
    assert np.all(np.asarray(bounds.lower, float) <= low + tolerance * (1 + np.abs(low)))
    assert np.all(np.asarray(bounds.upper, float) >= high - tolerance * (1 + np.abs(high)))


@pytest.mark.parametrize("name", [*EXACT, *LOOSE])
def test_no_sample_leaves_the_bounds(name, x64):
    fn = {**EXACT, **LOOSE}[name]
    for box in boxes(seed=3):
        tolerance = 1e-6 if name in ("convert", "selu") else 1e-9
        assert_sound(bound(fn, box), fn, box, tolerance=tolerance)


@pytest.mark.parametrize("name", EXACT)
def test_bounds_are_attained(name, x64):
    """Within 5 % of the range of 20000 samples of which half are corners."""
    for box in boxes(seed=4):
        result = bound(EXACT[name], box)
        low, high = extremes(EXACT[name], sampled(box, 20000))
        room = 0.05 * (high - low) + 1e-6 * (1 + np.abs(low))
        assert np.all(result.lower >= low - room) and np.all(result.upper <= high + room)


def test_every_rule_is_exercised(x64):
    """By name, so that a rule added without a case here is found. The names left out exist in some JAX only."""
    traced = set()
    for fn in [*EXACT.values(), *LOOSE.values()]:
        traced |= {eqn.name for eqn in trace(fn, jnp.zeros(6), WHOLE).equations}
    elsewhere = """conv_general_dilated add_any copy_p expand_dims sharding_constraint name device_put logaddexp
        broadcast_in_dim transpose stack unstack tile log2""".split()
    assert set(RULES).difference(elsewhere) <= traced


CONVOLUTIONS = {
    "same": dict(window_strides=(1,), padding="SAME"),
    "strided": dict(window_strides=(2,), padding=[(2, 1)]),
    "dilated": dict(window_strides=(1,), padding=[(3, 3)], rhs_dilation=(2,), lhs_dilation=(3,)),
    "grouped": dict(window_strides=(1,), padding="VALID", feature_group_count=2),
    "batch_grouped": dict(window_strides=(1,), padding="SAME", batch_group_count=2),
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("weights_move", [False, True])
def test_convolutions_in_either_operand(options, weights_move, x64):
    kernel = KERNEL[:, :1] if "feature_group_count" in options else KERNEL
    fn = (lambda w: conv1d(IMAGE, w, **options)) if weights_move else (lambda x: conv1d(x, kernel, **options))
    centre = kernel if weights_move else IMAGE
    half = 0.3 * np.abs(np.random.RandomState(5).randn(*centre.shape))
    box = Interval(jnp.asarray(centre - half), jnp.asarray(centre + half))
    result = bound(fn, box)
    assert_sound(result, fn, box)
    jacobian = jax.jacobian(fn)(jnp.asarray(centre))  # linear, so that the exact range is known
    radius = np.tensordot(np.abs(jacobian), half, centre.ndim)
    np.testing.assert_allclose(result.lower, fn(centre) - radius, atol=1e-12)
    np.testing.assert_allclose(result.upper, fn(centre) + radius, atol=1e-12)


UNARY = ["abs", "add", "argument_of_sub", "cos", "dot", "dot_left", "elu", "expm1", "leaky_relu", "logistic", "max",
         "mul", "neg", "relu", "rev", "round", "silu", "sin", "softplus", "sort", "square", "tanh", "gelu", "gt",
         "softmax", "residual", "norm", "cumsum", "reduce_window_sum", "clamp", "floor"]  # fmt: skip
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, jnp.maximum, lambda a, b: a / (1 + b * b),
          lambda a, b: jnp.where(a > b, a, b * 0.5), lambda a, b: jnp.outer(a, b) @ a / 6]  # fmt: skip


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=15)
def test_random_programs(data):
    steps = data.draw(st.lists(st.tuples(st.sampled_from(UNARY), st.integers(0, len(BINARY))), min_size=2, max_size=5))
    width, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 1000))

    def program(x):
        earlier = x
        for unary, binary in steps:
            value = {**EXACT, **LOOSE}[unary](x)
            x, earlier = (BINARY[binary](value, earlier) if binary < len(BINARY) else value), value
        return x

    with jax.enable_x64(True):
        centre = np.random.RandomState(seed).uniform(-1, 1, 6)
        box = Interval(jnp.asarray(centre - width), jnp.asarray(centre + width))
        result = bound(program, box)
        assert not np.any(np.isnan(result.lower)) and not np.any(np.isnan(result.upper))
        assert_sound(result, program, box)


def test_infinite_where_undefined():
    box = Interval(jnp.array([-1.0, 1.0]), jnp.array([2.0, 2.0]))
    cases = [(jnp.log, -np.inf, np.log(2)), (lambda x: 1 / x, -np.inf, np.inf), (lax.rsqrt, 0.7071, np.inf),
             (lambda x: x**-2, -np.inf, np.inf), (lambda x: x**1.5, -np.inf, np.inf)]  # fmt: skip
    for fn, low, high in cases:
        result = bound(fn, box)
        np.testing.assert_allclose([result.lower[0], result.upper[0]], [low, high], rtol=1e-4)
        assert np.isfinite(result.lower[1]) and np.isfinite(result.upper[1])
