"""PGD and its relatives, step by step against NumPy on a model whose gradient is known: logits = x W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.attacks import starts
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X, W = DRAW.uniform(0.2, 0.8, (6, 5)), DRAW.standard_normal((5, 3))
Y = np.asarray([0, 1, 2, 0, 1, 2])


def linear(x):
    return x @ jnp.asarray(W, x.dtype)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gradient(x):
    """Of cross-entropy, per example."""
    return (softmax(x @ W) - np.eye(3)[Y]) @ W.T


def margin(x):
    z = x @ W
    return np.max(np.where(np.eye(3)[Y] > 0, -np.inf, z), 1) - z[np.arange(6), Y]


def project_l2(x, z, eps):
    """Onto the ball; these steps stay inside the box."""
    d = z - x
    return x + d * np.minimum(1, eps / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-30))


STEPS = {
    "linf": (np.sign, lambda x, z: np.clip(z, np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1))),
    "l2": (lambda g: g / np.linalg.norm(g, axis=1, keepdims=True), lambda x, z: project_l2(x, z, 0.1)),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_pgd_step_by_step(norm, num_steps, key, x64):
    ascend, project = STEPS[norm]
    begin = X + 0.01 * DRAW.standard_normal(X.shape)
    attack = attacks.pgd(
        getattr(threats, norm)(0.1), objective=attacks.cross_entropy, step_size=0.03, num_steps=num_steps,
        start=lambda threat, x, keys: jnp.asarray(begin),
    )  # fmt: skip
    expected = begin
    for _ in range(num_steps):
        expected = project(X, expected + 0.03 * ascend(gradient(expected)))
    np.testing.assert_allclose(jax.jit(attack, static_argnums=0)(linear, X, Y, key), expected, atol=1e-12)


def test_a_judge_keeps_the_best_member_found(key, x64):
    """Steps too large for the set oscillate: the last iterate is not the best, and x itself may be."""
    threat = threats.linf(0.1)
    knobs = {"objective": attacks.cross_entropy, "step_size": 0.15, "num_steps": 5, "start": starts.zero}
    path, z = [X], X
    for _ in range(5):
        z = STEPS["linf"][1](X, z + 0.15 * np.sign(gradient(z)))
        path.append(z)
    judged = attacks.pgd(threat, **knobs, judge=lambda logits, y: -attacks.margin(logits, y))(linear, X, Y, key)
    np.testing.assert_allclose(-margin(np.asarray(judged)), np.max([-margin(z) for z in path], 0), atol=1e-12)


def test_fgsm_is_one_sign_step(key):
    attack = attacks.fgsm(threats.linf(0.1), objective=attacks.cross_entropy, step_size=0.1)
    x_adv = attack(linear, jnp.float32(X), Y, key)
    np.testing.assert_allclose(x_adv, X + 0.1 * np.sign(gradient(X)), atol=1e-6)
    binary = attacks.fgsm(threats.linf(0.1), objective=attacks.margin, step_size=0.1)
    w = jnp.asarray(W[:, 0], jnp.float32)
    x_adv = binary(lambda z: jnp.stack([-z @ w, z @ w], 1), jnp.float32(X), jnp.ones(6, jnp.int32), key)
    np.testing.assert_allclose(x_adv, X - 0.1 * np.sign(W[:, 0]), atol=1e-6)


def test_r_fgsm_is_a_random_sign_step_and_a_gradient_step(key):
    threat, x = threats.linf(0.1), jnp.float32(X)
    begin = starts.random_sign(step_size=0.05)(threat, x, example_keys(key, 6))
    np.testing.assert_allclose(np.abs(begin - x), 0.05, atol=1e-6)
    assert 0.2 < np.mean(begin > x) < 0.8
    attack = attacks.r_fgsm(threat, objective=attacks.cross_entropy, random_size=0.05, step_size=0.05)
    expected = np.asarray(begin, np.float64) + 0.05 * np.sign(gradient(np.asarray(begin, np.float64)))
    np.testing.assert_allclose(attack(linear, x, Y, key), expected, atol=1e-6)


def test_gaussian_start_has_its_scale_and_is_not_projected(key):
    x = jnp.zeros((500, 20))
    begin = starts.gaussian(scale=0.001)(threats.linf(1e-5), x, example_keys(key, 500))
    assert abs(np.std(begin) - 0.001) < 3e-5 and abs(np.mean(begin)) < 3e-5
    assert len(np.unique(begin)) > 9900  # examples differ from one another


def test_objectives_by_hand():
    logits = jnp.asarray([[2.0, 1.0, -1.0], [0.0, 3.0, 3.5]])
    y, p = jnp.asarray([0, 1]), softmax(np.asarray(logits, np.float64))
    np.testing.assert_allclose(attacks.cross_entropy(logits, y), -np.log(p[[0, 1], [0, 1]]), rtol=1e-6)
    np.testing.assert_allclose(attacks.margin(logits, y), [-1.0, 0.5], rtol=1e-6)
    q = softmax(np.asarray(logits[::-1], np.float64))
    np.testing.assert_allclose(attacks.kl(logits[::-1], logits), np.sum(p * np.log(p / q), 1), rtol=1e-5)
    assert not np.allclose(attacks.kl(logits[::-1], logits)[0], attacks.kl(logits, logits[::-1])[0])
