"""Training of denoisers against float64 NumPy, gradients by central differences, and the Wiener filter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.core import Batch, Net, batch_forward, train_forward
from robustgen.losses.denoising import denoising, stability

DRAW = np.random.default_rng(0)
X, W, SIGMA = DRAW.uniform(0.3, 0.7, (6, 4)), DRAW.standard_normal((4, 3)), 0.4


def denoiser(train_scale=1.0):
    """x -> a x + b, twice that in training mode."""

    def apply(variables, x, train, mutable=None, rngs=None):
        p = variables["params"]
        clean = (train_scale if train else 1.0) * (p["a"] * x + p["b"])
        return clean if mutable is None else (clean, {})

    return Net({"a": jnp.asarray(0.7), "b": jnp.asarray(0.1)}, {}, apply)


def denoiser_cases():
    return {"mse": denoising, "stability": functools.partial(stability, lambda x: jnp.tanh(x) @ jnp.asarray(W))}


@pytest.mark.parametrize("name", ["mse", "stability"])
def test_denoiser_losses(name, key, x64):
    make, batch, seen = denoiser_cases()[name], Batch(jnp.asarray(X), None), []

    def spy(net, x, key):
        seen.append(x)
        return train_forward(net, x, key)

    value, _ = make(sigma=SIGMA, forward=spy)(denoiser(), batch, key)
    grads = jax.grad(make(sigma=SIGMA), has_aux=True)(denoiser(), batch, key)[0].params
    noisy, target = np.asarray(seen[0]), (np.tanh(X) @ W).argmax(-1)

    def oracle(a, b):
        clean = a * noisy + b
        if name == "mse":
            return np.mean((clean - X) ** 2)
        e = np.exp(np.tanh(clean) @ W)
        return -np.mean(np.log((e / e.sum(1, keepdims=True))[np.arange(6), target]))

    np.testing.assert_allclose(value, oracle(0.7, 0.1), rtol=1e-10)
    slope = [(oracle(0.7 + h, 0.1 + k) - oracle(0.7 - h, 0.1 - k)) / 2e-6 for h, k in ((1e-6, 0), (0, 1e-6))]
    np.testing.assert_allclose([grads["a"], grads["b"]], slope, rtol=1e-6)
    np.testing.assert_allclose(np.std(noisy - X), SIGMA, rtol=0.5)


def test_the_best_linear_denoiser_is_the_wiener_filter(key):
    """For data N(0, 1) under noise of 0.5 the MSE is least at a = 1 / (1 + 0.25), b = 0, where it is 0.2."""
    x = jax.random.normal(jax.random.key(5), (4000, 4))
    loss = denoising(sigma=0.5, forward=batch_forward)
    wiener = Net({"a": jnp.float32(0.8), "b": jnp.float32(0.0)}, {}, denoiser().apply_fn)
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(wiener, Batch(x, None), key)
    np.testing.assert_allclose(value, 0.2, rtol=0.03)
    np.testing.assert_allclose([grads.params["a"], grads.params["b"]], 0, atol=0.03)
    assert aux.metrics["mse"] == value
