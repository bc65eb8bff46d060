"""Minimal-norm attacks on linear models, where the distance to the boundary has a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import minimal
from robustgen.attacks.minimal import distances, norms

DRAW = np.random.default_rng(0)
_, W2 = DRAW.standard_normal((2, 6, 3)), DRAW.standard_normal((20, 2))  # numbers from the same draws as test_minimal.py
_, X2 = DRAW.uniform(0.1, 0.9, (8, 6)), DRAW.uniform(-0.5, 0.5, (8, 20))
Y2 = (X2 @ W2).argmax(1)
DIFFERENCE = (W2[:, 1] - W2[:, 0])[None] * np.where(Y2 == 0, 1, -1)[:, None]  # of the other logit from the right one
GAP = -np.sum(X2 * DIFFERENCE, 1)
DUAL = {"L1": np.inf, "L2": 2, "LINF": 1}
FMN = {"step_size": 1.0, "final_step_size": 0.01, "gamma": 0.05, "final_gamma": 0.001, "overshoot": 0.05}
DDN = {"step_size": 1.0, "final_step_size": 0.01, "init_eps": 1.0, "gamma": 0.05}
SIGMA = {"step_size": 1.0, "final_step_size": 0.1, "sigma": 1e-3, "threshold": 0.3, "threshold_step": 0.01}
CW = {"confidence": 0.0, "learning_rate": 0.01, "num_searches": 9, "num_checks": 10, "init_c": 1e-3}


def two_classes(x):
    return x @ jnp.asarray(W2, x.dtype)


def run(attack, f, x, y, dtype=np.float32):
    return np.asarray(jax.jit(attack, static_argnums=0)(f, jnp.asarray(x, dtype), jnp.asarray(y), jax.random.key(0)))


def sizes(norm, x_adv):
    return np.asarray(distances(norm.size, two_classes, jnp.float32(X2), jnp.asarray(Y2), x_adv), np.float64)


@pytest.mark.parametrize("name", DUAL)
def test_fmn_reaches_the_boundary_of_a_linear_model(name):
    norm = getattr(norms, name)
    exact = GAP / np.linalg.norm(DIFFERENCE, DUAL[name], 1)
    found = sizes(norm, run(minimal.fmn(norm, num_steps=300, **FMN, clip=None), two_classes, X2, Y2))
    assert np.all(found >= exact * (1 - 1e-5)) and np.all(found <= exact * 1.01), found / exact


def test_ddn_and_cw_reach_the_boundary_of_a_linear_model():
    exact = GAP / np.linalg.norm(DIFFERENCE, axis=1)
    ddn = sizes(norms.L2, run(minimal.ddn(num_steps=300, **DDN, levels=None, clip=None), two_classes, X2, Y2))
    cw = sizes(norms.L2, run(minimal.cw_l2(num_steps=1000, **CW, clip=(-1.0, 1.0)), two_classes, X2, Y2))
    assert np.all(np.minimum(ddn, cw) >= exact * (1 - 1e-5))
    assert np.all(ddn <= exact * 1.01), ddn / exact
    far = exact > 0.1  # nearer than Adam's steps, the penalty needs more searches
    assert np.sum(far) >= 6 and np.all(cw[far] <= exact[far] * 1.01), cw / exact


def test_l0_attacks_change_as_many_features_as_the_greedy_optimum():
    """Each feature may go to its limit: the fewest whose gains, the largest first, exceed the gap."""
    x = np.clip(X2 - np.linspace(0, 0.6, 8)[:, None] * DIFFERENCE, -1, 1)
    gains = -np.sort(-np.maximum(DIFFERENCE * (1 - x), -DIFFERENCE * (1 + x)), 1)
    exact = 1 + np.sum(np.cumsum(gains, 1) <= -np.sum(x * DIFFERENCE, 1)[:, None], 1)
    assert exact.min() < exact.max() and exact.max() >= 3
    knobs = {"num_steps": 300, "clip": (-1.0, 1.0)}
    for attack in (minimal.fmn(norms.L0, **FMN, **knobs), minimal.sigma_zero(**SIGMA, **knobs)):
        x_adv = run(attack, two_classes, x, Y2)
        found = np.asarray(distances(norms.L0.size, two_classes, jnp.float32(x), jnp.asarray(Y2), x_adv))
        assert np.all(found >= exact) and np.all(found <= exact + 1) and np.mean(found == exact) >= 0.7, found - exact


def test_fmn_from_another_attack_starts_at_the_boundary():
    """From a far point, all found at once: after one step, FMN returns the bisected start."""

    def far(logits_fn, x, y, key):
        return jnp.asarray(X2 + 3 * DIFFERENCE, x.dtype)

    for name, dual in DUAL.items():
        norm = getattr(norms, name)
        start = minimal.fmn(norm, num_steps=1, **FMN, start=far, num_bisections=20, clip=None)
        x_adv = run(start, two_classes, X2, Y2)
        assert np.all(np.sum((x_adv - X2) * DIFFERENCE, 1) >= GAP * (1 - 1e-4))
        assert np.all(np.sum((x_adv - X2) * DIFFERENCE, 1) <= GAP * (1 + 1e-4) + 1e-4)
        assert np.all(sizes(norm, x_adv) >= GAP / np.linalg.norm(DIFFERENCE, dual, 1) * (1 - 1e-5))


def test_deepfool_crosses_the_nearest_of_all_boundaries_in_one_step():
    """Of a linear model: x + (1 + overshoot) (distance + 1e-4) along the nearest rival's direction."""
    weights, x = np.random.default_rng(3).standard_normal((20, 4)) * [0.2, 1, 2, 4], X2
    y, rows = (x @ weights).argmax(1), np.arange(8)
    slopes = weights.T[None] - weights.T[y][:, None]  # [8, 4, 20]
    lengths = np.linalg.norm(slopes, axis=2)
    ways = np.where(np.eye(4)[y] > 0, np.inf, -np.einsum("bkd,bd->bk", slopes, x) / np.maximum(lengths, 1e-9))
    k = ways.argmin(1)
    longest = np.max(np.where(np.eye(4)[y] > 0, -np.inf, x @ weights), 1) == (x @ weights)[rows, k]
    assert not np.all(longest)  # the nearest boundary is not always that of the second class
    step = 1.02 * (ways[rows, k] + 1e-4) / lengths[rows, k]
    expected = x + step[:, None] * slopes[rows, k]
    attack = minimal.deepfool(num_steps=5, overshoot=0.02, num_classes=4, clip=None)
    np.testing.assert_allclose(run(attack, lambda z: z @ jnp.asarray(weights, z.dtype), x, y), expected, atol=1e-5)


def test_distances_are_zero_where_wrong_already_and_infinite_where_nothing_was_found():
    x, y = jnp.float32(X2[:3]), jnp.asarray([Y2[0], 1 - Y2[1], Y2[2]])
    x_adv = x.at[2].add(2 * jnp.float32(DIFFERENCE[2]))
    found = np.asarray(distances(norms.L1.size, two_classes, x, y, x_adv))
    np.testing.assert_allclose(found, [np.inf, 0, 2 * np.abs(DIFFERENCE[2]).sum()], rtol=1e-5)
