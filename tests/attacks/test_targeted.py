"""Targeted attacks: the wanted class is reached, not just any wrong one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(0.3, 0.7, (16, 6)), jnp.float32)
Y = jnp.asarray(DRAW.integers(0, 4, 16), jnp.int32)
W = jnp.asarray(DRAW.standard_normal((6, 4)), jnp.float32)
SURE = jax.nn.one_hot(Y, 4)


def model(x):
    """Right on X; many other classes are in reach."""
    return x @ W - X @ W + SURE


def test_objectives_are_by_hand():
    logits, wanted = jnp.asarray([[1.0, 3.0, 2.0]] * 3), jnp.arange(3)
    np.testing.assert_allclose(attacks.targeted_margin(logits, wanted), [-2, 1, -1])
    total = np.log(np.exp([1, 2, 3]).sum())
    np.testing.assert_allclose(attacks.targeted_cross_entropy(logits, wanted), np.array([1, 3, 2]) - total, rtol=1e-6)


@pytest.mark.parametrize(
    ("objective", "rate"),
    [(attacks.targeted_cross_entropy, 1.0), (attacks.targeted_margin, 0.6)],  # signs zigzag on a margin's ridges
)
def test_reaches_each_class_that_can_be_reached(objective, rate, key):
    """Wherever some corner of the box, found by enumeration, wins by 0.5 or more; and nowhere that all lose."""
    pgd = attacks.pgd(threats.linf(0.7, clip=None), objective=objective, step_size=0.05, num_steps=40,
                      judge=attacks.targeted_margin)  # fmt: skip
    attack = jax.jit(lambda wanted: pgd(model, X, wanted, key))
    corners = X[:, None] + 0.7 * jnp.asarray(np.stack(np.meshgrid(*[[-1, 1]] * 6), -1).reshape(-1, 6), jnp.float32)
    certain = 0
    for t in range(4):
        wanted = jnp.full(16, t, jnp.int32)
        reached = np.asarray(attacks.targeted_margin(model(attack(wanted)), wanted) > 0)
        logits = np.asarray((corners - X[:, None]) @ W + SURE[:, None])
        best = np.max(logits[..., t] - np.max(np.delete(logits, t, -1), -1), axis=1)
        assert np.mean(reached[best > 0.5]) >= rate and not np.any(reached[best < 0])
        certain += np.sum((best > 0.5) & (Y != t))
    assert certain > 20  # of 48 goals


def test_choices_are_never_the_label(key):
    logits = jnp.asarray(DRAW.standard_normal((16, 4)), jnp.float32)
    keys = example_keys(key, 16)
    ranks = np.argsort(np.where(np.arange(4) == np.asarray(Y)[:, None], np.nan, logits), -1)  # NaN sorts last
    np.testing.assert_array_equal(attacks.least_likely(logits, Y, keys), ranks[:, 0])
    np.testing.assert_array_equal(attacks.most_likely(logits, Y, keys), ranks[:, 2])
    many = jax.vmap(lambda k: attacks.random_class(logits, Y, example_keys(k, 16)))(jax.random.split(key, 600))
    shifts = np.asarray((many - Y) % 4)
    assert set(np.unique(shifts)) == {1, 2, 3}
    np.testing.assert_allclose(np.bincount(shifts.ravel())[1:] / shifts.size, 1 / 3, atol=0.02)


def test_targeted_is_the_attack_at_the_chosen_class(key):
    pgd = attacks.pgd(threats.linf(0.5, clip=None), objective=attacks.targeted_margin, step_size=0.05, num_steps=20)
    x_adv = attacks.targeted(pgd, choose=attacks.least_likely)(model, X, Y, key)
    wanted = attacks.least_likely(model(X), Y, example_keys(key, 16))
    np.testing.assert_allclose(x_adv, pgd(model, X, wanted, key), atol=1e-6)
    kept = attacks.targeted(pgd, choose=attacks.least_likely, judge=attacks.margin)(model, X, Y, key)
    assert jnp.all(attacks.margin(model(kept), Y) >= attacks.margin(model(X), Y))
