"""What the suite is made of, against attacks and models whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.evaluation.validity import flagged
from robustgen.validity import Evaluated, probe, validity
from robustgen.validity.binary import binarization_test
from robustgen.validity.suite import unbounded
from robustgen.validity.trace import tracer

DRAW = np.random.default_rng(0)
X = DRAW.uniform(0.2, 0.8, (6, 5)).astype(np.float32)
W = jnp.asarray(DRAW.standard_normal((5, 3)), jnp.float32)
Y = np.asarray(np.argmax(X @ W, -1), np.int32)
PGD = attacks.scaled_pgd(objective=attacks.margin, relative_step=0.25, num_steps=8, num_restarts=1)
SETTINGS = {"eps": 0.1, "objective": "margin", "num_steps": 8, "num_restarts": 1}


@jax.tree_util.Partial
def linear(x):
    return x @ W


@jax.tree_util.Partial
def inputs(x):
    return x


def lazy(threat, eps):
    """Looks at both ends of the set, and returns x."""

    def attack(logits_fn, x, y, key):
        ends = logits_fn(threat.project(x, x + 1)), logits_fn(threat.project(x, x - 1)), logits_fn(x + 9)
        return x + 0 * jnp.sum(ends[0] + ends[1] + ends[2])

    return attack


def test_a_path_is_all_that_an_attack_evaluates(key):
    """In order; a point outside the set is no hit, however wrong."""
    path = tracer(lazy, threats.linf)(linear, X, Y, 0.1, key)
    np.testing.assert_allclose(path.x_adv, X)
    for losses, hits, z in zip(path.losses, path.hits, (X + 0.1, X - 0.1, X + 9), strict=True):
        logits = np.asarray(z @ np.asarray(W), np.float64)
        others = np.where(np.arange(3) == Y[:, None], -np.inf, logits).max(-1)
        margin = others - logits[np.arange(6), Y]
        np.testing.assert_allclose(losses, margin, atol=1e-5)
        np.testing.assert_array_equal(hits, (margin > 0) & (np.abs(z - X).max(-1) < 0.2))
    np.testing.assert_array_equal(path.predicted, Y)


@pytest.mark.parametrize(
    ("threat_at", "distance"),
    [
        (threats.linf, lambda far: far.max()),
        (threats.l2, lambda far: np.sqrt((far**2).sum(-1)).max()),
        (lambda eps: threats.linf(eps, None), lambda far: 0.1 * 2**12),
    ],
)
def test_unbounded_is_the_first_doubling_that_reaches_the_far_corner(threat_at, distance):
    lower, upper = (np.full_like(X, end) for end in ((-np.inf, np.inf) if distance(np.ones((1, 1))) > 9 else (0, 1)))
    found = unbounded(threat_at, 0.1, probe.Examples(X, Y, lower, upper))
    needed = distance(np.maximum(X, 1 - X))
    assert found == pytest.approx(0.1 * 2 ** np.ceil(np.log2(needed / 0.1 - 1e-4)))


def test_slopes_of_a_smooth_model_by_hand(key):
    """Along +-1 the margin of a linear model changes by its weights, one way and the other."""
    one = probe.Examples(X, Y, np.zeros_like(X), np.ones_like(X))
    by_gradient, by_difference = probe.slopes(linear, one, key)
    assert by_gradient.shape == (6, 8)
    np.testing.assert_allclose(by_gradient, by_difference, atol=2e-6)
    bound = 2e-3 * np.abs(np.asarray(W)).max() * 5
    assert 0 < np.abs(by_gradient).max() <= bound


def test_an_attack_passes_the_binarization_test_and_doing_nothing_does_not(key):
    """Features are the inputs themselves: the head's best member of the set is a corner, which one sign step finds."""
    good = binarization_test(inputs, PGD, threats.linf, 0.1, jnp.asarray(X), key, num_inner=100)
    bad = binarization_test(inputs, lazy, threats.linf, 0.1, jnp.asarray(X), key, num_inner=100)
    assert not good.flagged and good.value == 100
    assert bad.flagged and bad.value == 0


def test_a_model_that_cannot_be_differentiated_is_told_so(key):
    """Computed on the host, as a library for trees would."""

    def foreign(x):
        shape = jax.ShapeDtypeStruct((len(x), 3), jnp.float32)
        return jax.pure_callback(lambda z: np.asarray(z) @ np.asarray(W), shape, x)

    names = flagged(_suite(foreign, key))
    assert names == ["unavailable gradients"]


def test_an_attack_that_returns_its_worst_is_told_so(key):
    """Silent success, and whatever else it follows that nothing is found; of two classes too."""
    names = flagged(_suite(lambda x: 4 * linear(x)[:, :2], key, lazy))
    assert {"silent success", "unbounded attack fails", "binarization test"} <= set(names)


def _suite(model, key, attack_at=PGD):
    y = np.asarray(jnp.argmax(model(jnp.asarray(X)), -1))
    evaluated = Evaluated(attack_at, PGD, SETTINGS)
    return validity(
        model, X, y, threat_at=threats.linf, eps=0.1, evaluated=evaluated, black_box_at=None, num_inner=100, key=key
    )
