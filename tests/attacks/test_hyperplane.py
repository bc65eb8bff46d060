"""The shortest way to a hyperplane inside a box against linear programs and a root from Brent's method, in float64."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustgen.attacks import norms

NORMS = (norms.linf, norms.l2, norms.l1)
FEATURES = 6
by_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)


def limits(z, w, gap):
    """(low, high) of the shift in the box [0, 1]; w and gap turned so that gap >= 0; zero rows of w may not move."""
    z, w, gap = (np.asarray(a, np.float64) for a in (z, w, gap))
    return np.where(w == 0, 0, -z), np.where(w == 0, 0, 1 - z), w * (-1 if gap < 0 else 1), abs(gap)


def corner(z, w, gap):
    """The shift that decreases |gap| the most."""
    low, high, w, _ = limits(z, w, gap)
    return np.where(w > 0, low, high)


def linf_size(low, high, w, gap):
    """min t, |d| <= t, w d = -gap, low <= d <= high."""
    n = len(w)
    below = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    cost, bounds = np.eye(n + 1)[n], [*zip(low, high, strict=True), (0, None)]
    return solve(cost, below, np.append(w, 0)[None], -gap, bounds)


def l1_size(low, high, w, gap):
    """min sum p + q, d = p - q."""
    bounds = [(0, h) for h in high] + [(0, -side) for side in low]
    return solve(np.ones(2 * len(w)), None, np.concatenate([w, -w])[None], -gap, bounds)


def solve(cost, below, equal, value, bounds):
    right = None if below is None else np.zeros(len(below))
    found = scipy.optimize.linprog(cost, below, right, equal, [value], bounds, method="highs")
    assert found.status == 0
    return found.fun


def l2_size(low, high, w, gap):
    """d = clip(-t w, low, high) at the t where w d = -gap: the conditions of optimality."""
    if gap == 0:
        return 0.0
    left = lambda t: w @ np.clip(-t * w, low, high) + gap  # noqa: E731
    t = scipy.optimize.brentq(left, 0, 1e4, xtol=1e-14, rtol=1e-14)
    return np.linalg.norm(np.clip(-t * w, low, high))


SIZE = {"Linf": linf_size, "L2": l2_size, "L1": l1_size}


@functools.cache
def compiled(norm):
    return jax.jit(norm.to_plane)


def shifts(norm, z, w, gap, lower=0.0, upper=1.0):
    z, w, gap = (jnp.asarray(a, jnp.float32) for a in (z, w, gap))
    moved = compiled(norm)(z, w, gap, jnp.full_like(z, lower), jnp.full_like(z, upper))
    return np.asarray(moved, np.float64)


def whole(low, high, shape):
    size = int(np.prod(shape))
    return st.lists(st.integers(low, high), min_size=size, max_size=size).map(lambda a: np.reshape(a, shape))


@by_norm
@hypothesis.given(whole(0, 8, (4, FEATURES)), whole(-12, 12, (4, FEATURES)), whole(-99, 99, (4,)))
def test_shortest_where_the_plane_is_in_reach_and_the_corner_elsewhere(norm, z, w, reach):
    """z on the sides of the box and w = 0 included; `reach` is the gap in percent of what the box allows."""
    z, w = z / 8, np.sign(w) * w**2 / 7
    allowed = [abs(row @ corner(at, row, sign)) for at, row, sign in zip(z, w, reach, strict=True)]
    gap = 0.0125 * reach * np.asarray(allowed)
    for d, at, row, c in zip(shifts(norm, z, w, gap), z, w, gap, strict=True):
        low, high, turned, need = limits(at, row, c)
        assert np.all((d >= low - 1e-6) & (d <= high + 1e-6))
        if need > turned @ -corner(at, row, c) * 0.999:
            np.testing.assert_allclose(d, corner(at, row, c), atol=1e-4)
            continue
        np.testing.assert_allclose(row @ d, -c, atol=1e-5 * max(1, np.abs(row).max()))
        size = float(norm.size(jnp.asarray(d, jnp.float32)[None])[0])
        np.testing.assert_allclose(size, SIZE[norm.name](low, high, turned, need), rtol=1e-5, atol=2e-5)


def test_coordinates_leave_together_and_stop_at_the_sides(key):
    """Linf and L2 have one shortest way each: |d_i| = min(t, room_i), and min(t |w_i|, room_i)."""
    z, w = np.asarray([[0.5, 0.5, 0.1, 1.0, 0.3]]), np.asarray([[1.0, -2.0, 4.0, -1.0, 0.0]])
    t = 0.25
    np.testing.assert_allclose(shifts(norms.linf, z, w, [t + 2 * t + 0.4]), [[-t, t, -0.1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(shifts(norms.l2, z, w, [t + 4 * t + 0.4]), [[-t, 2 * t, -0.1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(shifts(norms.l1, z, w, [0.4 + 0.5]), [[0, 0.25, -0.1, 0, 0]], atol=1e-6)


@by_norm
@pytest.mark.parametrize("features", [1, 784])
def test_without_a_box_the_distance_is_the_gap_over_the_dual_norm(norm, features):
    draw = np.random.default_rng(0).standard_normal
    w, gap = draw((5, features)), draw(5)
    d = shifts(norm, draw((5, features)), w, gap, -np.inf, np.inf)
    np.testing.assert_allclose(np.sum(w * d, 1), -gap, atol=1e-5)
    sizes, slopes = (np.asarray(f(jnp.asarray(a, jnp.float32))) for f, a in ((norm.size, d), (norm.dual, w)))
    np.testing.assert_allclose(sizes, np.abs(gap) / slopes, rtol=1e-5)


@by_norm
def test_a_gradient_too_small_to_square_leads_the_same_way(norm):
    """The w of a confident net, and w = 0, for which nothing moves."""
    z, w = np.random.default_rng(0).uniform(size=(2, 3, FEATURES))
    gap = w.sum(1) / 4
    np.testing.assert_allclose(shifts(norm, z, w * 1e-30, gap * 1e-30), shifts(norm, z, w, gap), atol=1e-5)
    np.testing.assert_array_equal(shifts(norm, z, 0 * w, gap), 0 * z)


@by_norm
def test_many_features_of_very_different_slopes(norm):
    """Slopes over 12 orders of magnitude, as gradients have; two points for one w."""
    draw = np.random.default_rng(3)
    z = draw.choice([0, 0.5, 1, 0.2], (2, 2, 300))
    w = draw.standard_normal((2, 300)) * 10.0 ** draw.uniform(-12, 0, (2, 300))
    gap = 0.6 * np.asarray([[row @ -corner(at, row, 1) for at, row in zip(half, w, strict=True)] for half in z])
    d = shifts(norm, z, w, gap)
    np.testing.assert_allclose(np.sum(w * d, -1), -gap, rtol=1e-5)
    sizes = [norm.size(jnp.asarray(half, jnp.float32)) for half in d]
    rows = [zip(half, w, c, strict=True) for half, c in zip(z, gap, strict=True)]
    wanted = [[SIZE[norm.name](*limits(*row)) for row in half] for half in rows]
    np.testing.assert_allclose(sizes, wanted, rtol=1e-4)
