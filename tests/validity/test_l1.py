"""Square in the L1 ball, an examination's attack without gradients: near the exact worst case of a linear model."""

import jax
import jax.numpy as jnp
import numpy as np

from robustgen import threats
from robustgen.attacks.square_l1 import square_l1
from robustgen.validity import square_at

EPS, WEIGHTS = 1.5, jnp.asarray(np.random.default_rng(0).standard_normal((36, 2)), jnp.float32)


def net(x):
    return (x.reshape(len(x), -1) - 0.5) @ WEIGHTS


def test_square_breaks_nobody_whom_the_exact_worst_case_spares():
    """Of a linear model the worst member is known (`support`); the radius is traced, as the suite has it."""
    x = np.random.default_rng(1).random((60, 6, 6), np.float32)
    y = np.asarray(net(x)).argmax(-1).astype(np.int32)
    threat = threats.l1(EPS)
    against = np.where(y[:, None] == 0, 1, -1) * np.asarray(WEIGHTS[:, 1] - WEIGHTS[:, 0])
    gain = np.asarray(threat.support(jnp.asarray(against.reshape(x.shape), jnp.float32), x))
    breakable = gain - 0.5 * against.sum(-1) > 0
    attack = square_at(square_l1, clip=(0.0, 1.0), num_queries=100)
    run = jax.jit(lambda eps: attack(threats.l1(eps), eps)(net, x, y, jax.random.key(0)))
    x_adv = np.asarray(run(jnp.float32(EPS)), np.float64)
    broken = np.asarray(net(x_adv.astype(np.float32))).argmax(-1) != y
    assert np.all(np.abs(x_adv - x).reshape(60, -1).sum(-1) <= EPS) and x_adv.min() >= 0 and x_adv.max() <= 1
    assert broken.sum() >= 3 and not np.any(broken & ~breakable)
