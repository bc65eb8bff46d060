"""Attacks made of attacks: more work never hurts, and each example keeps its own best."""

import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.knobs import KnobError

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(0.2, 0.8, (16, 4)), jnp.float32)
Y = jnp.asarray(DRAW.integers(0, 3, 16), jnp.int32)
W, V = (jnp.asarray(DRAW.standard_normal(shape), jnp.float32) for shape in ((4, 12), (12, 3)))


def bumpy(x):
    """A model with many local maxima, so that the start decides."""
    return jnp.sin(20 * x @ W) @ V


def value(x_adv):
    return attacks.margin(bumpy(x_adv), Y)


def once(eps=0.2, num_steps=3):
    return attacks.pgd(threats.linf(eps), objective=attacks.margin, step_size=0.02, num_steps=num_steps)


def test_restarts_improve_on_every_example_and_keep_the_first_run(key):
    best_of = [attacks.restarts(once(), judge=attacks.margin, num_restarts=n) for n in (1, 8)]
    one, eight = (value(attack(bumpy, X, Y, key)) for attack in best_of)
    assert np.all(eight >= one) and np.mean(eight) > np.mean(one) + 0.1


def test_worst_of_is_the_maximum_over_its_attacks(key):
    """Two attacks without randomness, so that each can be run alone."""
    alone = [attacks.fgsm(threats.linf(0.2), objective=attacks.margin, step_size=s) for s in (0.05, 0.2)]
    expected = np.maximum(*(value(attack(bumpy, X, Y, key)) for attack in alone))
    found = value(attacks.worst_of(alone, judge=attacks.margin)(bumpy, X, Y, key))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(KnobError, match="attacks: must name at least one"):
        attacks.worst_of([], judge=attacks.margin)


def test_over_eps_runs_each_radius_inside_it(key):
    """As the attack alone at that radius does; with running maxima the security curve falls."""
    eps = [0.0, 0.01, 0.1, 8 / 255, 0.3]

    def at(radius):
        return attacks.pgd(threats.linf(radius), objective=attacks.margin, step_size=radius / 4, num_steps=4,
                           judge=attacks.margin)  # fmt: skip

    x_adv = attacks.over_eps(at, eps)(bumpy, X, Y, key)
    assert x_adv.shape == (5, *X.shape)
    distance = np.abs(np.asarray(x_adv, np.float64) - np.asarray(X, np.float64)).max((1, 2))
    assert np.all(distance <= eps) and np.all(distance[1:] > 0)
    np.testing.assert_allclose(x_adv[2], at(0.1)(bumpy, X, Y, key), atol=1e-5)
    robust = np.minimum.accumulate([np.asarray(value(z) <= 0) for z in x_adv[np.argsort(eps)]])
    assert np.all(np.diff(robust.mean(1)) <= 0) and robust[0].mean() > robust[-1].mean()
    for wrong in ([float("nan")], [-0.1], 0.1):
        with pytest.raises(KnobError, match="eps: must be a list"):
            attacks.over_eps(at, wrong)
