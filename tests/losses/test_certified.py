"""The IBP loss: its value against NumPy, its gradient against differences, its batch-norm and ramp behaviour."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.core import Batch, Net
from robustgen.knobs import KnobError
from robustgen.losses import certified


class Small(nn.Module):
    """A dense net with batch norm and dropout."""

    @nn.compact
    def __call__(self, x, train):
        h = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x)))
        return nn.Dense(3)(nn.Dropout(0.3, deterministic=not train)(h))


def small_net() -> Net:
    variables = dict(Small().init(jax.random.key(0), jnp.ones((1, 5)), train=False))
    return Net(variables.pop("params"), variables, Small().apply)


def plain_apply(variables, x, train, mutable=(), rngs=None):
    p = variables["params"]
    logits = jax.nn.relu(x @ p["w"]) @ p["v"]
    return (logits, {}) if train else logits


def plain_net(dtype=jnp.float32) -> Net:
    random = np.random.RandomState(0)
    params = {"w": jnp.asarray(random.randn(5, 7), dtype), "v": jnp.asarray(random.randn(7, 3), dtype)}
    return Net(params, {}, plain_apply)


def batch(count=8, dtype=jnp.float32) -> Batch:
    random = np.random.RandomState(1)
    return Batch(jnp.asarray(random.uniform(size=(count, 5)), dtype), jnp.asarray(random.randint(3, size=count)))


def numpy_loss(net, data, eps, kappa):
    w, v, x, y = (np.asarray(a, float) for a in (net.params["w"], net.params["v"], data.x, data.y))
    total, proved = 0.0, 0
    for row, label in zip(x, y.astype(int), strict=True):
        low, high = np.clip(row - eps, 0, 1), np.clip(row + eps, 0, 1)
        centre, radius = (low + high) / 2 @ w, (high - low) / 2 @ np.abs(w)
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
        d = v[:, [label]] - v
        margin = (low + high) / 2 @ d - (high - low) / 2 @ np.abs(d)
        logits = np.maximum(row @ w, 0) @ v
        clean = np.log(np.sum(np.exp(logits - logits[label])))
        total += kappa * clean + (1 - kappa) * np.log(np.sum(np.exp(-margin)))
        proved += np.delete(margin, label).min() > 0
    return total / len(y), proved / len(y)


@pytest.mark.parametrize(("eps", "kappa"), [(0.1, 0.5), (0.02, 0.0), (0.0, 0.3), (0.3, 1.0)])
def test_value_against_numpy(eps, kappa, key, x64):
    net, data = plain_net(jnp.float64), batch(dtype=jnp.float64)
    value, aux = certified.ibp(threats.linf(eps), kappa=kappa)(net, data, key)
    expected, proved = numpy_loss(net, data, eps, kappa)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(aux.metrics["certified_accuracy"], proved)
    assert aux.metrics["certified_accuracy"] <= aux.metrics["clean_accuracy"]


def test_gradient_against_differences(key, x64):
    net, data = plain_net(jnp.float64), batch(dtype=jnp.float64)
    loss = certified.ibp(threats.linf(0.1), kappa=0.3)
    value = jax.jit(lambda params: loss(Net(params, {}, plain_apply), data, key)[0])
    jax.test_util.check_grads(value, (net.params,), order=1, modes=["rev"], eps=1e-6, rtol=1e-5)


def test_eps_and_kappa_ramp_in_one_trace(key):
    net, data = small_net(), batch()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, eps, kappa):
        loss = certified.ibp(threats.linf(eps), kappa=kappa)
        return jax.value_and_grad(lambda p: loss(Net(p, net.state, net.apply_fn), data, key)[0])(params)

    for eps, kappa in [(0.0, 1.0), (0.05, 0.75), (0.1, 0.5)]:
        value, gradient = step(net.params, eps, kappa)
        chex.assert_tree_all_finite((value, gradient))
        eager = certified.ibp(threats.linf(eps), kappa=kappa)(net, data, key)[0]
        np.testing.assert_allclose(value, eager, rtol=1e-5)


def test_batch_norm_and_dropout(key):
    """The clean pass moves the statistics; the bounds use them so moved, without dropout and without its gradient."""
    net, data = small_net(), batch()
    logits, moved = net.train(data.x, key)
    value, aux = certified.ibp(threats.linf(0.0), kappa=0.0)(net, data, key)
    chex.assert_trees_all_close(aux.state, moved.state)
    log_p = jax.nn.log_softmax(Net(net.params, moved.state, net.apply_fn)(data.x))
    np.testing.assert_allclose(value, -jnp.mean(jnp.take_along_axis(log_p, data.y[:, None], 1)), rtol=1e-5)
    clean, _ = certified.ibp(threats.linf(0.0), kappa=1.0)(net, data, key)
    log_q = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(clean, -jnp.mean(jnp.take_along_axis(log_q, data.y[:, None], 1)), rtol=1e-5)


def test_training_by_it_certifies(key):
    """Two separated classes: plain gradient descent certifies all of them, where the start certifies none."""
    centres = jnp.array([[0.8, 0.8, 0.2, 0.2, 0.5], [0.2, 0.2, 0.8, 0.8, 0.5]])
    y = jnp.repeat(jnp.arange(2), 20)
    data = Batch(centres[y] + 0.05 * jax.random.normal(key, (40, 5)), y)
    loss = certified.ibp(threats.linf(0.15), kappa=0.5)

    @jax.jit
    def descend(params):
        value = jax.value_and_grad(lambda p: loss(Net(p, {}, plain_apply), data, key), has_aux=True)
        (_, aux), gradient = value(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), aux.metrics["certified_accuracy"]

    params, first = descend(plain_net().params)
    for _ in range(300):
        params, last = descend(params)
    assert first < 0.5 and last == 1.0


@pytest.mark.parametrize("kappa", [-0.1, 1.5, float("nan")])
def test_kappa_is_checked(kappa):
    with pytest.raises(KnobError, match="kappa"):
        certified.ibp(threats.linf(0.1), kappa=kappa)
