"""The L1 ball in a box: against the kinks of its dual sorted in float64, linear programs and closed forms."""

import bisect

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustgen import threats
from robustgen.spread import example_keys

LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
PROJECT = jax.jit(lambda eps, x, z: threats.l1(eps).project(x, z))
SUPPORT = jax.jit(lambda eps, A, x: threats.l1(eps).support(A, x))


def excess(x, x_adv, eps):
    """By how much members leave ball and box, in float64; not above 0 where none does."""
    x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
    return max(np.max(np.sum(np.abs(x_adv - x), 1)) - np.float64(eps), -x_adv.min(), x_adv.max() - 1.0)


def nearest(x, z, eps):
    """One row in float64: of the dual's kinks, sorted, the segment with the root, and the root on it."""
    x, z = np.float64(x), np.float64(z)
    size, room = np.abs(z - x), np.where(z > x, 1 - x, x)

    def moved(level):
        return np.clip(size - level, 0, room)

    level, kinks = 0.0, np.unique(np.maximum(np.concatenate([[0.0], size, size - room]), 0.0))
    if moved(0.0).sum() > eps:
        first = bisect.bisect_left(kinks, -eps, key=lambda kink: -moved(kink).sum())  # to fit
        over, fits = (moved(kink).sum() for kink in kinks[first - 1 : first + 1])
        level = kinks[first] - (eps - fits) / (over - fits) * (kinks[first] - kinks[first - 1])
    return x + np.sign(z - x) * moved(level)


def test_a_projection_by_hand():
    """(0.9, 0.5, 0.2) + (1, 0.3, -0.1), radius 0.3: the first may move 0.1 alone, of 0.3 and 0.1 are left 0.2 and 0."""
    x, z = jnp.asarray([[0.9, 0.5, 0.2]]), jnp.asarray([[1.9, 0.8, 0.1]])
    np.testing.assert_allclose(PROJECT(0.3, x, z)[0], [1.0, 0.7, 0.2], atol=2e-5)


def test_features_below_the_level_stay_exactly_where_they_are():
    """APGD-L1 and L0 distances count them."""
    draw, eps = np.random.default_rng(0), 1.5
    x = draw.uniform(-0.3, 1.3, (1280, 24)).clip(0, 1).astype(np.float32)
    z = np.float32(x + draw.choice([0, 0.1, 0.4, -0.4, -0.1], x.shape) + 0.05 * draw.standard_normal(x.shape))
    found = np.asarray(PROJECT(eps, x, z))
    stay = np.array([nearest(*rows, eps) == rows[0] for rows in zip(x, z, strict=True)])
    assert stay.mean() > 0.3 and np.mean(found[stay] == x[stay]) > 0.999
    clear = stay & (np.abs(z - x) < np.max(np.where(stay, np.abs(z - x), 0), 1, keepdims=True) - 1e-4)
    np.testing.assert_array_equal(found[clear], x[clear])


@pytest.mark.parametrize("features", [6, 3072])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.1, 1.0, 12.0, 5000.0])
def test_project_is_the_nearest_member(eps, features, key):
    """Requests from 10^-4 to 10^6 away, heavy tailed ones, equal ones, and x at the edges of the box."""
    draw = np.random.default_rng(0)
    x = draw.choice(LEVELS, (24, features))
    x[:, ::3] = np.round(x[:, ::3])
    z = x + np.logspace(-4, 6, 24)[:, None] * draw.standard_normal((24, features))
    z[::4] = x[::4] + draw.standard_cauchy((6, features))
    z[1::8] = x[1::8] + 0.3
    z = np.float32(z)
    found = np.asarray(PROJECT(jnp.float32(threats.round_down(eps, np.float32)), x, z))
    assert excess(x, found, eps) <= 0
    np.testing.assert_array_equal(PROJECT(jnp.float32(threats.round_down(eps, np.float32)), x, found), found)
    expected = np.stack([nearest(row, request, eps) for row, request in zip(x, z, strict=True)])
    margin = 3e-7 * (8 + 4 * np.sqrt(features)) * np.abs(expected - x).sum(1)  # of the radius, kept for rounding
    size = np.finfo(np.float32).eps * (1 + np.abs(z - x).max(1))  # a float32 of the request is no finer than this
    np.testing.assert_array_less(np.abs(found - expected).max(1), 1e-7 + margin + 4 * size)


@hypothesis.given(
    x=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    z=st.lists(st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 2, width=32), min_size=4, max_size=4),
    eps=st.sampled_from([0.0, 1e-30, 8 / 255, 0.1, 0.5, 3.0]),
)
def test_any_point_is_projected_inside_and_stays(x, z, eps):
    x, z, radius = LEVELS[np.asarray(x)][None], np.asarray(z, np.float32)[None], threats.round_down(eps, np.float32)
    member = PROJECT(jnp.asarray(radius), x, z)
    assert excess(x, member, eps) <= 0
    np.testing.assert_array_equal(PROJECT(jnp.asarray(radius), x, member), member)


def test_projecting_on_ball_and_box_in_turn_is_not_nearest():
    """What Croce & Hein 2021 found wrong with earlier attacks: it wastes the budget of features that are clipped."""
    x, z = jnp.asarray([[0.9, 0.5]]), jnp.asarray([[1.9, 0.9]])
    in_turn = jnp.clip(threats.l1(0.5, clip=None).project(x, z), 0.0, 1.0)
    distances = [np.linalg.norm(p - z) for p in (PROJECT(0.5, x, z), in_turn)]
    np.testing.assert_allclose(PROJECT(0.5, x, z)[0], [1.0, 0.9], atol=2e-5)
    assert distances[0] < distances[1] - 0.02


def test_support_is_what_a_linear_program_finds(key):
    """With a clip too; the corner cases: eps 0, more than the box holds, A with zeros, x at the edges."""
    draw = np.random.default_rng(1)
    for eps in (0.0, 0.05, 0.7, 2.0, 50.0):
        x, A = draw.uniform(0, 1, (4, 6)), draw.standard_normal((3, 4, 6)) * [1, 1, 0, 1e-3, 1, 10]
        x[:2, :3] = np.round(x[:2, :3])
        found = np.asarray(SUPPORT(jnp.float32(eps), jnp.float32(A), jnp.float32(x)))
        for k, b in np.ndindex(3, 4):
            up_and_down = [(0, high) for high in (*(1 - x[b]), *x[b])]
            gain = -scipy.optimize.linprog(
                np.concatenate([-A[k, b], A[k, b]]), A_ub=np.ones((1, 12)), b_ub=[eps], bounds=up_and_down
            ).fun
            np.testing.assert_allclose(found[k, b], A[k, b] @ x[b] + gain, rtol=1e-5, atol=1e-5)


def test_support_is_differentiable_and_its_gradient_is_the_maximizer(key):
    """Danskin: d/dA max <A, x'> = x'; with one feature at its limit, one on the way, the others where they were."""
    x, A = jnp.asarray([[0.9, 0.5, 0.4]]), jnp.asarray([[3.0, 2.0, -1.0]])
    gradient = jax.grad(lambda A: threats.l1(0.3).support(A, x)[0])(A)
    np.testing.assert_allclose(gradient, [[1.0, 0.7, 0.4]], atol=1e-6)
    by_radius = jax.grad(lambda eps: threats.l1(eps).support(A, x)[0])(0.3)
    np.testing.assert_allclose(by_radius, 2.0, atol=1e-6)  # what the feature on the way earns
    unbounded = jax.grad(lambda A: threats.l1(0.3, clip=None).support(A, x)[0])(A)
    np.testing.assert_allclose(unbounded, [[1.2, 0.5, 0.4]], atol=1e-6)


def test_samples_fill_the_ball_uniformly(key):
    """P(||d||_1 < r) = (r / eps)^D, and every orthant as often as another."""
    x = jnp.zeros((4000, 3))
    moved = np.asarray(jax.jit(threats.l1(0.5, clip=None).sample)(x, example_keys(key, 4000)))
    norms = np.abs(moved).sum(1) / 0.5
    np.testing.assert_allclose([np.mean(norms < r) for r in (0.5, 0.8, 0.9)], [0.125, 0.512, 0.729], atol=0.03)
    np.testing.assert_allclose(np.bincount((moved > 0) @ [1, 2, 4], minlength=8) / 4000, 1 / 8, atol=0.02)


def test_ascend_moves_the_steepest_feature_alone_or_its_equals():
    gradient = jnp.asarray([[0.1, -3.0, 2.0], [2.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    expected = [[0.0, -0.2, 0.0], [0.1, -0.1, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(threats.l1(0.5).ascend(gradient, 0.2), expected, atol=1e-7)
