"""Certificates of executed float32 nets: against nets made to fool real arithmetic, and every order of summation."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.reliability import tiny_nets
from robustgen import threats
from robustgen.certify import UnknownPrimitive, crown, crown_ibp, sound_alpha_crown, sound_crown, sound_crown_ibp
from robustgen.certify.crown import crown_margins, intervals
from robustgen.certify.rounding import CURVES, gamma
from robustgen.certify.sound import sound_margins
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED

F = np.float32
ADAM = {"num_steps": 3, "learning_rate": 0.5, "decay": 0.98}
SOUND = {"crown": sound_crown, "crown_ibp": sound_crown_ibp, "alpha": lambda threat: sound_alpha_crown(threat, **ADAM)}


def status(certifier, net, x, y=0):
    run = jax.jit(lambda x: certifier(net, x, jnp.full(len(x), y, jnp.int32), jax.random.key(0)).status)
    return np.asarray(run(x))


def cancelling(scale):
    """Logits (1, 24 (((x + scale) - scale) - x)) for x > 0: (1, 0) in real arithmetic, another where `scale` eats x.

    As Zombori et al. 2021 ("Fooling a complete neural network verifier"): neurons that large numbers make and cancel.
    """

    def net(x):
        one = jax.nn.relu(0.0 * x[:, 0] + 1.0)  # a verifier that goes backwards adds this last, to what has cancelled
        large = jax.nn.relu(x[:, 0] + scale)
        return jnp.stack([one, 24.0 * jax.nn.relu(large - scale) - 24.0 * jax.nn.relu(x[:, 0])], 1)

    return net


def test_a_net_that_float32_evaluates_otherwise_is_refused():
    """Above x = 1 the large neuron rounds to 2^24 + 2: class 1 in float32, in real arithmetic always class 0."""
    net, x, threat = cancelling(F(2.0**24)), jnp.full((1, 1), F(0.98)), threats.linf(0.05, clip=None)
    assert np.diff(jax.jit(net)(jnp.full((1, 1), F(0.98))))[0] < 0 < np.diff(jax.jit(net)(jnp.full((1, 1), F(1.02))))[0]
    assert status(crown(threat), net, x) == [VERIFIED]  # true of real arithmetic, and only of it
    for name, certifier in SOUND.items():
        assert status(certifier(threat), net, x) == [UNKNOWN], name


def test_the_same_net_without_large_numbers_is_certified():
    threat, x = threats.linf(0.01, clip=None), jnp.full((1, 1), F(0.4))
    for certifier in SOUND.values():
        assert status(certifier(threat), cancelling(F(2.0)), x) == [VERIFIED]


@pytest.mark.parametrize("certifier", [*SOUND.values(), crown, crown_ibp])
def test_overflow_proves_nothing(certifier):
    def net(x):
        hidden = jax.nn.relu(x * F(1e30)) * F(1e30)
        return jnp.concatenate([hidden, -hidden], 1)

    assert status(certifier(threats.linf(0.1, clip=None)), net, jnp.ones((1, 1))) != [VERIFIED]


def test_a_falsified_clean_point():
    assert status(sound_crown(threats.linf(0.01)), lambda x: jnp.concatenate([x, 1 - x], 1), jnp.ones((1, 1)), 1) == [
        FALSIFIED
    ]


def test_a_primitive_without_an_error_bound_is_named():
    with pytest.raises(UnknownPrimitive, match="atan"):
        sound_margins(lambda x: jnp.arctan(x), jnp.ones((1, 2)), jnp.zeros(1, int), threats.linf(0.1))


def test_a_net_in_other_precision_is_refused():
    with pytest.raises(TypeError, match="bfloat16"):
        net = lambda x: x.astype(jnp.bfloat16).astype(jnp.float32)  # noqa: E731
        sound_margins(net, jnp.ones((1, 2)), jnp.zeros(1, int), threats.linf(0.1))


@pytest.mark.parametrize("refine", [intervals, None])
def test_convolutions_cost_little_beside_the_plain_bound(refine):
    """Compiled in float32, checked in float64 inside it; strided maps, windows and a pool among the layers."""
    draw = np.random.default_rng(0)
    kernels = [jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in ((3, 3, 1, 4), (3, 3, 4, 4))]
    last = jnp.asarray(draw.standard_normal((16, 3)), jnp.float32)

    def net(x):
        for stride, kernel in zip((1, 2), kernels, strict=True):
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=numbers))
        pooled = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return pooled.reshape(len(x), -1) @ last

    x, threat = jnp.asarray(draw.uniform(size=(2, 8, 8, 1)), jnp.float32), threats.linf(0.002)
    y = jnp.argmax(net(x), 1)
    plain, sound = (
        np.asarray(jax.jit(lambda x, f=f: f(net, x, y, threat, refine))(x)) for f in (crown_margins, sound_margins)
    )
    lost = plain - sound
    assert np.all(lost >= 0) and 0 < lost.max() < 5e-3


# Every order of summation


def in_order(terms):
    total = F(0)
    for term in terms:
        total = F(total + term)
    return total


def pairwise(terms):
    while len(terms) > 1:
        terms = [F(a + b) for a, b in itertools.zip_longest(terms[::2], terms[1::2], fillvalue=F(0))]
    return terms[0]


def dot(w, x, order, fused, draw):
    """A float32 dot product: the order of the sum, and whether each product is rounded before it is added."""
    index = {"straight": np.arange(len(x)), "reversed": np.arange(len(x))[::-1]}.get(order, draw.permutation(len(x)))
    if fused:
        total = F(0)
        for i in index:
            total = F(np.float64(w[i]) * np.float64(x[i]) + np.float64(total))
        return total
    return (pairwise if order == "pairwise" else in_order)([F(w[i] * x[i]) for i in index])


def executed(weights, x, order, fused, draw):
    """Logits of a relu net, one neuron after the other in float32."""
    for i, (w, b) in enumerate(weights):
        x = np.array([F(dot(w[:, j], x, order, fused, draw) + b[j]) for j in range(w.shape[1])], F)
        x = np.maximum(x, F(0)) if i + 1 < len(weights) else x
    return x


SIZES = (12, 16, 16, 3)


@jax.jit
def sound_lower(weights, x, eps):
    def net(x):
        for w, b in weights[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ weights[-1][0] + weights[-1][1]

    return sound_margins(net, x, jnp.zeros(len(x), jnp.int32), threats.linf(eps, clip=None))[:, 1:]


def random_net(draw, scale):
    """Large weights that cancel in part: every second one is nearly the negative of the one before."""
    weights = []
    for a, b in itertools.pairwise(SIZES):
        w = scale * draw.standard_normal((a, b))
        w[1::2] = -w[::2] + 1e-4 * scale * draw.standard_normal(w[1::2].shape)
        weights.append((w.astype(F), draw.standard_normal(b).astype(F)))
    return weights


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 100.0]), eps=st.sampled_from([0.0, 1e-7, 1e-2]),
    order=st.sampled_from(["straight", "reversed", "pairwise", "shuffled"]), fused=st.booleans(),
)  # fmt: skip
def test_no_order_of_summation_is_below_the_bound(seed, scale, eps, order, fused):
    draw = np.random.default_rng(seed)
    weights, x = random_net(draw, scale), draw.standard_normal((1, SIZES[0])).astype(F)
    lower = np.asarray(sound_lower(weights, jnp.asarray(x), F(eps)), np.float64)[0]
    for _ in range(10):
        point = (x[0].astype(float) + F(eps).astype(float) * draw.choice([-1, 0, 1], SIZES[0])).astype(F)
        point = np.where(np.abs(point.astype(float) - x[0]) <= F(eps), point, x[0])
        found = executed(weights, point, order, fused, draw).astype(np.float64)
        assert np.all(found[0] - found[1:] >= lower)


def test_the_error_bound_is_near_what_is_met(capsys):
    """eps = 0, so that all that is left between bound and executed value is rounding: bound it, but not by far more."""
    ratios = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        weights, x = random_net(draw, 1.0), draw.standard_normal((1, SIZES[0])).astype(F)
        exact = x.astype(np.longdouble)
        for i, (w, b) in enumerate(weights):
            exact = exact @ w.astype(np.longdouble) + b
            exact = np.maximum(exact, 0) if i + 1 < len(weights) else exact
        allowed = (exact[:, :1] - exact[:, 1:])[0] - np.asarray(sound_lower(weights, jnp.asarray(x), F(0)), float)[0]
        met = np.zeros(2)
        for order, fused in itertools.product(["straight", "reversed", "pairwise", "shuffled"], [False, True]):
            found = executed(weights, x[0], order, fused, draw).astype(np.longdouble)
            met = np.maximum(met, np.abs((found[0] - found[1:]) - (exact[:, :1] - exact[:, 1:])[0]))
        assert np.all(met <= allowed)
        ratios.append(allowed / met)
    assert np.median(ratios) < 1000, np.median(ratios)


# Elementary functions


WHOLE = {
    "silu": jax.nn.silu, "softplus": jax.nn.softplus, "elu": jax.nn.elu, "selu": jax.nn.selu, "gelu": jax.nn.gelu,
    "celu": jax.nn.celu, "hard_silu": jax.nn.hard_silu, "leaky_relu": jax.nn.leaky_relu, "erf": jax.lax.erf,
    "leaky": lambda x: jnp.where(x > 0, x, 0.1 * x), "erfc": jax.lax.erfc, "log1p": jnp.log1p, "expm1": jnp.expm1,
    "logistic": jax.nn.sigmoid, "rsqrt": jax.lax.rsqrt, "exp2": jnp.exp2, "square": jnp.square,
}  # fmt: skip
POSITIVE = ("log", "log2", "sqrt", "rsqrt", "log1p")


@pytest.mark.parametrize("name", sorted(CURVES))
def test_elementary_functions_are_within_half_of_what_is_allowed(name):
    fn, curve = WHOLE.get(name) or getattr(jnp, name), CURVES[name]
    x = np.concatenate([s * np.logspace(-30, 1.94, 20000, dtype=F) for s in ((1,) if name in POSITIVE else (1, -1))])
    found = np.asarray(jax.jit(fn)(x), np.float64)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(fn)(x.astype(np.float64)))
        size = np.maximum(np.abs(exact), np.asarray(curve.scale(np.abs(np.float64(x)), np.abs(exact))))
    used = np.maximum(np.abs(found - exact) - curve.floor, 0) / (curve.units * 2.0**-23 * size + 1e-300)
    assert used.max() <= 0.5, (name, used.max(), x[used.argmax()])


def test_gamma():
    assert gamma(1) >= 2.0**-24 and math.isinf(gamma(2**24))


# Exact minima


def test_no_bound_is_above_the_exact_minimum_of_a_tiny_net():
    """A slice of experiments/reliability/tiny_nets.py, whose minima are themselves held against a grid of points."""
    nets = tiny_nets.drawn(np.random.default_rng(7), (3, 3), 100)
    minima = tiny_nets.exact_minima(nets)
    count = tiny_nets.compared("sound CROWN", nets, minima)
    assert count.above == count.wrong == 0 and count.verified > 20
    steps = np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = 12 * nets.lower[:, None] + steps * (nets.upper - nets.lower)[:, None]
    values = tiny_nets.logits(nets.weights, nets.biases, grid, 12) / 12
    own = values[np.arange(100), :, nets.y]
    others = np.where(np.arange(3) == nets.y[:, None, None], -np.inf, values)
    least, exact = (own - others.max(2)).min(1), np.array(minima, float)
    assert np.all(least >= exact - 1e-4) and np.mean(least - exact < 0.05 * (1 + np.abs(exact))) > 0.6
