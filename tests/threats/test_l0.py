"""Sparse threats: against every subset of features tried, and selection against a sort."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.spread import example_keys
from robustgen.threats.selection import largest

LARGEST = jax.jit(largest)


@hypothesis.given(
    scores=st.lists(st.floats(0, 10, width=32) | st.sampled_from([0.0, -0.0, 1.0, 2.0, 1e-42]), min_size=7, max_size=7),
    count=st.integers(0, 9),
)
def test_largest_keeps_the_first_of_a_stable_sort(scores, count):
    scores = np.asarray(scores, np.float32)
    expected = np.zeros(7, bool)
    expected[np.argsort(-scores, kind="stable")[:count]] = True
    np.testing.assert_array_equal(LARGEST(jnp.asarray(scores)[None], count)[0], expected)


def test_largest_in_double_precision_and_many_features(x64):
    scores = np.abs(np.random.default_rng(0).standard_normal((3, 2, 3072)))
    mask = np.asarray(LARGEST(jnp.asarray(scores), 100))
    assert np.all(mask.sum(-1) == 100)
    assert np.all(np.min(np.where(mask, scores, np.inf), -1) > np.max(np.where(mask, 0, scores), -1))


def members_of(x, z, size):
    """Every choice of `size` of the places of x [D, C], z there and x elsewhere: [N, D, C]."""
    for chosen in itertools.combinations(range(len(x)), size):
        mask = np.isin(np.arange(len(x)), chosen)
        yield np.where(mask[:, None], np.clip(z, 0, 1), x)


@pytest.mark.parametrize(("factory", "channels"), [(threats.l0, 1), (threats.l0_pixels, 1), (threats.l0_pixels, 3)])
@pytest.mark.parametrize("eps", [0, 1, 3, 6, 9])
def test_project_and_support_are_the_best_of_all_subsets(factory, channels, eps):
    draw = np.random.default_rng(eps)
    x = draw.uniform(0, 1, (8, 6, channels))
    x[:, :2] = np.round(x[:, :2])
    z = x + draw.standard_normal(x.shape) * [[[0.1]]] * 8 ** draw.integers(0, 3, (8, 6, 1))
    z[:, 3] = x[:, 3]
    A = draw.standard_normal(x.shape)
    threat, size = factory(eps), min(eps, 6)
    found, support = threat.project(jnp.float32(x), jnp.float32(z)), threat.support(jnp.float32(A), jnp.float32(x))
    changed = np.any(np.asarray(found) != np.float32(x), -1).sum(1)
    assert np.all(changed <= eps) and jnp.all((found >= 0) & (found <= 1))
    for b in range(8):
        least = min(np.sum((m - z[b]) ** 2) for m in members_of(x[b], z[b], size))
        np.testing.assert_allclose(np.sum((found[b] - z[b]) ** 2), least, rtol=1e-5, atol=1e-6)
        best = max(np.sum(m * A[b]) for m in members_of(x[b], A[b] * 1e9, size))
        np.testing.assert_allclose(support[b], best, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(threat.project(jnp.float32(x), found), found)


def test_a_clipped_request_counts_by_what_the_box_leaves_of_it():
    """The first feature asks for most and can move least: the second is worth keeping."""
    x, z = jnp.asarray([[0.99, 0.2]]), jnp.asarray([[2.0, 0.9]])
    np.testing.assert_allclose(threats.l0(1).project(x, z), [[0.99, 0.9]])


@pytest.mark.parametrize("factory", [threats.l0, threats.l0_pixels])
def test_samples_change_as_many_places_as_they_may_each_as_often(factory, key):
    x = jnp.full((3000, 5, 2), 0.5)
    changed = np.asarray(jax.jit(factory(2).sample)(x, example_keys(key, 3000)) != x)
    places = changed.any(-1) if factory is threats.l0_pixels else changed.reshape(3000, -1)
    assert np.all(places.sum(1) == 2)
    np.testing.assert_allclose(places.mean(0), 2 / places.shape[1], atol=0.04)


def test_bounds_are_the_box_once_a_feature_may_move():
    x = jnp.full((1, 3), 0.25)
    np.testing.assert_array_equal(threats.l0(0).bounds(x), [x, x])
    np.testing.assert_array_equal(threats.l0(1, clip=(0.0, 0.5)).bounds(x), [jnp.zeros((1, 3)), jnp.full((1, 3), 0.5)])


def test_flat_inputs_have_no_pixels():
    with pytest.raises(ValueError, match="takes x"):
        threats.l0_pixels(1).project(jnp.zeros((2, 5)), jnp.ones((2, 5)))
