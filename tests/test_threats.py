"""Threat sets against float64 arithmetic, a quadratic program and closed forms."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustgen import threats
from robustgen.knobs import KnobError
from robustgen.spread import example_keys

LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
LINF_EPS = (8 / 255, 0.1, 0.3, 0.031, 1e-6, 0.0)


def excess(x, x_adv, eps, norm=None):
    """By how much members leave ball and box, in float64; not above 0 where none does."""
    x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
    ball = (np.abs(x_adv - x) if norm is None else norm(x_adv - x)) - np.float64(eps)
    return max(ball.max(), -x_adv.min(), x_adv.max() - 1.0)


@pytest.mark.parametrize("eps", LINF_EPS)
def test_linf_is_inside_in_float64_for_every_pixel_value(eps, key):
    """All 256 values of a pixel times 400 requests, some exactly eps away: 102 400 outputs for each radius."""
    x = jnp.asarray(np.tile(LEVELS, (400, 1)))
    requests = x + 2 * eps * jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0)
    requests = requests.at[:2].set(x[:2] + jnp.asarray([[-1.0], [1.0]]) * np.float32(eps))
    threat = threats.linf(eps)
    for members in (threat.project(x, requests), threat.sample(x, example_keys(key, 400)), *threat.bounds(x)):
        assert excess(x, members, eps) <= 0
    if eps > 0:  # and no smaller than rounding asks for
        lower, upper = threat.bounds(x)
        assert np.max(np.minimum(x, eps) - (x - lower)) < 2e-7 and np.max(np.minimum(1 - x, eps) - (upper - x)) < 2e-7


def test_clipping_in_float32_alone_leaves_the_ball():
    """What the test above guards against: the usual idiom puts one pixel in seven outside of 8/255."""
    moved = np.clip(LEVELS + np.float32(8 / 255), LEVELS - np.float32(8 / 255), LEVELS + np.float32(8 / 255))
    assert np.mean(moved.astype(np.float64) - LEVELS.astype(np.float64) > 8 / 255) > 0.05


@pytest.mark.parametrize(
    ("features", "eps"), [(3, 0.5), (3, 0.1), (3, 1e-6), (3072, 0.5), (3072, 128 / 255), (3072, 1e-3)]
)
def test_l2_is_inside_in_float64(eps, features, key):
    rows = 40_000 // features + 20
    x = jnp.asarray(np.random.default_rng(0).choice(LEVELS, (rows, features)))
    noise = jax.random.normal(key, x.shape) * eps * jnp.logspace(-4, 2, rows)[:, None]
    threat = threats.l2(eps)
    for members in (jax.jit(threat.project)(x, x + noise), jax.jit(threat.sample)(x, example_keys(key, rows))):
        assert excess(x, members, eps, lambda d: np.linalg.norm(d, axis=1)) <= 0


@functools.cache
def projection(norm, eps):
    return jax.jit(getattr(threats, norm)(eps).project)


@hypothesis.given(
    x=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    x_adv=st.lists(st.floats(-3, 4, width=32), min_size=4, max_size=4),
    eps=st.sampled_from([8 / 255, 0.1, 0.5]),
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_any_point_is_projected_inside(norm, x, x_adv, eps):
    x, x_adv = LEVELS[np.asarray(x)][None], np.asarray(x_adv, np.float32)[None]
    members = projection(norm, eps)(x, x_adv)
    assert excess(x, members, eps, None if norm == "linf" else lambda d: np.linalg.norm(d, axis=1)) <= 0


def test_l2_projection_solves_the_quadratic_program():
    """The nearest point of ball and box, by SLSQP in float64; corners where many coordinates are clipped included."""
    random = np.random.default_rng(0)
    project = jax.jit(threats.l2(0.5).project)
    for _ in range(12):
        x, z = random.uniform(0, 1, 6), random.uniform(-1, 2, 6)
        x[:2] = random.integers(0, 2, 2)
        solved = scipy.optimize.minimize(
            lambda p, z=z: np.sum((p - z) ** 2), x, jac=lambda p, z=z: 2 * (p - z), bounds=[(0, 1)] * 6, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda p, x=x: 0.25 - np.sum((p - x) ** 2)},
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        found = project(jnp.asarray(x[None], jnp.float32), jnp.asarray(z[None], jnp.float32))[0]
        np.testing.assert_allclose(found, solved.x, atol=2e-5)


def test_l2_without_a_clip_is_a_ball(key):
    """Projection is a scaling, support <A, x> + eps |A|; samples fill the ball uniformly: P(|d| < r) = (r/eps)^D."""
    x, threat = jnp.zeros((4000, 3)), threats.l2(0.5, clip=None)
    norms = np.linalg.norm(jax.jit(threat.sample)(x, example_keys(key, 4000)), axis=1) / 0.5
    np.testing.assert_allclose([np.mean(norms < r) for r in (0.5, 0.8, 0.9)], [0.125, 0.512, 0.729], atol=0.03)
    z, A = jax.random.normal(key, (2, 5, 3))
    expected = z * np.minimum(1, 0.5 / np.linalg.norm(z, axis=1, keepdims=True))
    np.testing.assert_allclose(jax.jit(threat.project)(x[:5], z), expected, atol=2e-6)
    np.testing.assert_allclose(threat.support(A, x[:5]), 0.5 * np.linalg.norm(A, axis=1), rtol=1e-6)


def test_in_double_precision_radius_and_clip_are_exact(x64):
    x = jnp.asarray(np.linspace(0, 1, 1001)[None])
    lower, upper = threats.linf(0.1, clip=(0.2, 0.8)).bounds(x)
    assert x.dtype == lower.dtype == jnp.float64
    np.testing.assert_allclose(lower[0, 300:700], x[0, 300:700] - 0.1, atol=1e-15)
    single = threats.linf(0.1).bounds(jnp.float32(x))[1]
    assert single.dtype == jnp.float32 and excess(jnp.float32(x), single, 0.1) <= 0


def test_a_clip_is_rounded_inward():
    upper = threats.linf(0.5, clip=(0.0, 0.8)).bounds(jnp.full((1, 2), 0.5))[1]
    assert np.float64(np.max(upper)) <= 0.8 < np.float64(np.float32(0.8))


def test_box_is_the_same_for_every_x_and_refuses_crossed_bounds(key):
    threat = threats.box(jnp.asarray([0.1, 0.2]), jnp.asarray([0.3, 0.2]))
    members = threat.sample(jnp.zeros((100, 2)), example_keys(key, 100))
    assert np.ptp(members[:, 0]) > 0.15 and jnp.all(members[:, 1] == jnp.float32(0.2))
    with pytest.raises(KnobError, match="lower: must not exceed upper"):
        threats.box(jnp.ones(2), jnp.zeros(2))


@pytest.mark.parametrize("value", [8 / 255, 0.1, 0.3, 0.031, 0.7, 1 / 3, 0.0, 1e-30])
def test_round_down_is_the_neighbour_below(value):
    rounded = threats.round_down(value, np.float32)
    assert rounded.dtype == np.float32 and float(rounded) <= value
    assert float(np.nextafter(rounded, np.float32(1))) > value


def test_linf_takes_a_radius_per_feature(key):
    """0 leaves a feature as it is; inside each radius in float64, alike from NumPy and traced."""
    x = jnp.asarray(np.random.default_rng(0).choice(LEVELS, (200, 2, 3)))
    radii = np.asarray([[0.0, 0.1, 8 / 255], [0.3, 0.0, 1.0]])
    far = x + jax.random.normal(key, x.shape)
    found = threats.linf(radii).project(x, far)
    assert np.all(np.abs(np.asarray(found, np.float64) - np.asarray(x, np.float64)) <= radii)
    np.testing.assert_array_equal(found[:, radii == 0], x[:, radii == 0])
    traced = jax.jit(lambda eps: threats.linf(eps).project(x, far))(jnp.asarray(threats.round_down(radii, np.float32)))
    np.testing.assert_allclose(traced, found, rtol=0, atol=1e-6)
    with pytest.raises(KnobError, match="eps: must be finite and >= 0"):
        threats.linf(-radii)
