"""BIM and MIM, step by step against NumPy in double precision on a model whose gradient is known: logits = x W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.attacks import momentum

DRAW = np.random.default_rng(0)
X, W = DRAW.uniform(0.02, 0.98, (6, 5)), DRAW.standard_normal((5, 3))
Y = np.asarray([0, 1, 2, 0, 1, 2])


def linear(x):
    return x @ jnp.asarray(W, x.dtype)


def gradient(x):
    """Of cross-entropy, per example."""
    e = np.exp(x @ W)
    return (e / e.sum(1, keepdims=True) - np.eye(3)[Y]) @ W.T


def run(attack):
    return np.asarray(jax.jit(attack, static_argnums=0)(linear, jnp.asarray(X), jnp.asarray(Y), jax.random.key(0)))


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_mim_linf_step_by_step(decay, x64):
    g, z = np.zeros_like(X), X
    for _ in range(8):
        slope = gradient(z)
        g = decay * g + slope / np.sum(np.abs(slope), 1, keepdims=True)
        z = np.clip(np.clip(z + 0.03 * np.sign(g), X - 0.1, X + 0.1), 0, 1)
    knobs = {"objective": attacks.cross_entropy, "step_size": 0.03, "num_steps": 8}
    found = run(momentum.mim(threats.linf(0.1), **knobs, decay=decay))
    np.testing.assert_allclose(found, z, atol=1e-12)
    if decay == 0:
        np.testing.assert_allclose(run(momentum.bim(threats.linf(0.1), **knobs)), found, atol=1e-12)


def test_mim_l2_step_by_step(x64):
    """Eq. 8's L2 form, g / |g|_2, inside the ball and without a box."""
    g, z = np.zeros_like(X), X
    for _ in range(8):
        slope = gradient(z)
        g = g + slope / np.sum(np.abs(slope), 1, keepdims=True)
        d = z + 0.3 * g / np.linalg.norm(g, axis=1, keepdims=True) - X
        z = X + d * np.minimum(1, 0.5 / np.linalg.norm(d, axis=1, keepdims=True))
    threat = threats.l2(0.5, clip=None)
    attack = momentum.mim(threat, objective=attacks.cross_entropy, step_size=0.3, num_steps=8, decay=1.0)
    np.testing.assert_allclose(run(attack), z, atol=1e-9)


def test_momentum_carries_over_a_turn_of_the_gradient():
    """|x - 1/2| pulls back at once; with decay 1 the first two steps outvote it for one more."""

    def valley(x):
        return jnp.concatenate([jnp.abs(x - 0.5), jnp.zeros_like(x)], 1)

    def end(decay):
        knobs = {"objective": attacks.margin, "step_size": 0.1, "num_steps": 3, "decay": decay}
        attack = momentum.mim(threats.linf(1.0), **knobs)
        return float(attack(valley, jnp.asarray([[0.35]]), jnp.asarray([0]), jax.random.key(0))[0, 0])

    assert abs(end(0.0) - 0.45) < 1e-6 and abs(end(1.0) - 0.65) < 1e-6


def test_a_vanishing_gradient_keeps_its_direction():
    """1e-35 of a gradient is a direction as good as any; none at all moves nothing."""
    knobs = {"objective": attacks.margin, "step_size": 0.1, "num_steps": 2, "decay": 1.0}
    attack = momentum.mim(threats.linf(0.2), **knobs)
    x, y = jnp.full((1, 3), 0.5), jnp.asarray([0])
    tiny = attack(lambda z: jnp.stack([jnp.sum(z, 1), z[:, 0] * 0], 1) * 1e-35, x, y, jax.random.key(0))
    np.testing.assert_allclose(tiny, 0.3, atol=1e-6)
    np.testing.assert_array_equal(attack(lambda z: z[:, :2] * 0, x, y, jax.random.key(0)), x)
