"""Forward linear bounds: against their definition on small nets, by hand, and by sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.certify.crown import crown_ibp_margins
from robustgen.certify.forward import forward_margins
from robustgen.certify.ibp import margins_lower


def dense(sizes, seed=0):
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=s), rng.normal(size=s[1])) for s in zip(sizes, sizes[1:], strict=False)]

    def apply(x):
        for i, (w, b) in enumerate(layers):
            x = x @ jnp.asarray(w, x.dtype) + jnp.asarray(b, x.dtype)
            x = jax.nn.relu(x) if i + 1 < len(layers) else x
        return x

    return apply, layers


def by_hand(layers, low, high, y):
    """Lower bounds of the margins of one example, in float64: two lines a neuron, dense matrices."""
    centre, radius = (low + high) / 2, (high - low) / 2
    lower = upper = (np.eye(len(low)), np.zeros(len(low)))
    for i, (w, b) in enumerate(layers):
        plus, minus = np.maximum(w, 0), np.minimum(w, 0)
        lower, upper = (
            (lower[0] @ plus + upper[0] @ minus, lower[1] @ plus + upper[1] @ minus + b),
            (upper[0] @ plus + lower[0] @ minus, upper[1] @ plus + lower[1] @ minus + b),
        )
        if i + 1 < len(layers):
            least = centre @ lower[0] - radius @ np.abs(lower[0]) + lower[1]
            most = centre @ upper[0] + radius @ np.abs(upper[0]) + upper[1]
            slope = np.where(least >= 0, 1.0, np.where(most <= 0, 0.0, most / np.where(most > least, most - least, 1)))
            shift = np.where((least < 0) & (most > 0), -least * slope, 0.0)
            below = np.where(least >= 0, 1.0, np.where((most > 0) & (most > -least), 1.0, 0.0))
            lower, upper = (below * lower[0], below * lower[1]), (slope * upper[0], slope * upper[1] + shift)
    slopes, offsets = lower[0][:, [y]] - upper[0], lower[1][y] - upper[1]
    found = centre @ slopes - radius @ np.abs(slopes) + offsets
    return np.where(np.arange(len(found)) == y, 0.0, found)


@pytest.mark.parametrize("seed", range(3))
def test_two_lines_a_neuron(seed):
    with jax.enable_x64(True):
        net, layers = dense((4, 6, 5, 3), seed)
        x = np.random.default_rng(seed).uniform(size=(3, 4))
        y = jnp.array([0, 1, 2])
        threat = threats.linf(0.05, clip=None)
        ours = np.asarray(forward_margins(net, jnp.asarray(x), y, threat))
        low, high = map(np.asarray, threat.bounds(jnp.asarray(x)))
    hand = np.stack([by_hand(layers, *ends, int(label)) for *ends, label in zip(low, high, y, strict=True)])
    # intervals of interval arithmetic enter ours as well: never looser
    assert np.all(ours >= hand - 1e-9)
    assert np.median(np.abs(ours - hand)) < 0.3 * np.median(np.abs(hand))


def convolutional(x):
    rng = np.random.default_rng(1)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 4)) / 3, x.dtype)
    x = x.reshape(-1, 5, 5, 1)
    z = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    z = jnp.tanh(z) - 0.3 * x
    z = jax.lax.reduce_window(z, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    z = z.reshape(len(x), -1)
    return z @ jnp.asarray(rng.normal(size=(z.shape[1], 3)), x.dtype) / (1 + jax.nn.sigmoid(z[:, :3]))


@pytest.mark.parametrize("threat", [threats.linf(0.03), threats.l2(0.1), threats.l1(0.3)], ids=["linf", "l2", "l1"])
def test_no_sample_is_below(threat):
    x = jax.random.uniform(jax.random.key(0), (2, 25))
    y = jnp.array([0, 1])
    lower = jax.jit(lambda x: forward_margins(convolutional, x, y, threat))(x)
    keys = jax.random.split(jax.random.key(1), (500, 2))
    points = jax.vmap(lambda k: threat.sample(x, k))(keys)
    logits = jax.vmap(convolutional)(points)
    margins = jnp.take_along_axis(logits, y[None, :, None], 2) - logits
    assert np.all(margins >= lower - 1e-4)
    assert np.all(lower <= 0) or np.any(lower > -10)


def test_tighter_than_intervals_on_a_net_without_much_depth():
    net, _ = dense((4, 8, 3))
    x = jax.random.uniform(jax.random.key(0), (20, 4))
    y = jnp.argmax(net(x), 1)
    threat = threats.linf(0.1)
    forward, interval = forward_margins(net, x, y, threat), margins_lower(net, x, y, threat)
    assert jnp.mean(forward) > jnp.mean(interval)
    assert jnp.mean(crown_ibp_margins(net, x, y, threat)) >= jnp.mean(forward) - 1e-4  # one hidden layer: the tighter


def test_affine_nets_are_exact_in_every_norm():
    net, ((w, b),) = dense((4, 3))
    x = jax.random.uniform(jax.random.key(0), (3, 4))
    y = jnp.array([0, 1, 2])
    lower = forward_margins(net, x, y, threats.l2(0.5, clip=None))
    rows = np.moveaxis(w[:, np.asarray(y)][:, :, None] - w[:, None, :], 0, 2)  # [B, K, inputs]
    logits = np.asarray(net(x))
    exact = logits[np.arange(3), np.asarray(y)][:, None] - logits - 0.5 * np.linalg.norm(rows, axis=2)
    np.testing.assert_allclose(lower, np.where(np.arange(3) == np.asarray(y)[:, None], 0, exact), atol=1e-4)
