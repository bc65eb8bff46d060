"""A linear population whose robustness is known in closed form, and an attack that finds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Certificate, Net

EPS = 0.1


def linear(variables, x, *, train=False, **_):
    del train
    return x.reshape(x.shape[0], -1) @ variables["params"]["w"]


def strongest(threat):
    """Exact against a linear net of two classes: to the corner of the box that lowers the true logit's lead."""

    def attack(logits_fn, x, target, key):
        del key
        lead = jax.vmap(lambda row, y: jax.grad(lambda r: _lead(logits_fn, r, y))(row))(x, target)
        lower, upper = threat.bounds(x)
        return jnp.where(lead > 0, lower, upper)

    return attack


def noise(threat):
    """A random member of the set: depends on the key."""
    return lambda logits_fn, x, target, key: threat.sample(x, key)


def interval_certifier(threat):
    """Exact for a linear net of two classes."""

    def certifier(logits_fn, x, y, key):
        x_adv = strongest(threat)(logits_fn, x, y, key)
        margin = jax.vmap(lambda row, label: _lead(logits_fn, row, label))(x_adv, y)
        status = jnp.where(margin > 1e-4, VERIFIED, jnp.where(margin < 0, FALSIFIED, UNKNOWN))
        return Certificate(status, margin, None, x_adv)

    return certifier


def _lead(logits_fn, row, y):
    logits = logits_fn(row[None])[0]
    return logits[y] - logits[1 - y]


@pytest.fixture
def threat():
    return threats.linf(EPS)


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    x = draw.random((41, 3, 2)).astype(np.float32)
    return x, (x.sum((1, 2)) + draw.normal(0, 0.5, 41) > 3).astype(np.int32)


@pytest.fixture
def population():
    """Two nets, stacked: weights [2, 6, 2] drawn around the true direction."""
    w = np.random.default_rng(1).normal(0, 0.3, (2, 6, 1)).astype(np.float32) + 1
    bias = np.full((2, 6, 1), 1.0, np.float32)  # compares sum w x with 3 through the mean of x, which is near 1/2
    return Net({"w": jnp.asarray(np.concatenate([bias, w], -1))}, {}, linear)
