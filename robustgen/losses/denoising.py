"""Training of denoisers, for smoothing a classifier that was never trained on noise. Salman et al. 2020
(arXiv 2003.01908), section 3; the wrapper is `certify.smoothing.denoised`."""

from typing import Protocol

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.core import Array, Aux, Batch, Forward, Key, LogitsFn, Loss, Net, train_forward
from robustgen.knobs import NonNegative, checked
from robustgen.losses.smoothing import gaussian_noise
from robustgen.losses.standard import accuracy


class DenoiserLoss(Loss, Protocol):
    """A `Loss` whose net maps x [B, ...] to x of the same shape. Batches may hold labels, which are not used."""

    def __call__(self, net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]: ...


@checked
def denoising(*, sigma: NonNegative, forward: Forward = train_forward) -> DenoiserLoss:
    """Mean over batch and features of (D(x + e) - x)^2, e ~ N(0, sigma^2 I): the paper's MSE objective, which sums over
    features where its code (microsoft/denoised-smoothing), as here, takes the mean. Metrics: mse."""

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        x_clean, net = _denoised(net, batch.x, key, sigma, forward)
        value = jnp.mean((x_clean - batch.x) ** 2)
        return value, Aux(net.state, {"mse": value})

    return loss


@checked
def stability(classifier: LogitsFn, *, sigma: NonNegative, forward: Forward = train_forward) -> DenoiserLoss:
    """CE(f(D(x + e)), argmax f(x)): the paper's stability objective. It needs gradients of `classifier`, which stays as
    it is, and no labels.

    Published denoisers start from one trained on `denoising`. Metrics: stability_accuracy, how often f(D(x + e)) is of
    the class of f(x).
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        target = jnp.argmax(classifier(batch.x), -1)
        x_clean, net = _denoised(net, batch.x, key, sigma, forward)
        logits = classifier(x_clean)
        value = jnp.mean(cross_entropy(logits, target))
        return value, Aux(net.state, {"stability_accuracy": accuracy(logits, target)})

    return loss


def _denoised(net: Net, x: Array, key: Key, sigma: float | Array, forward: Forward) -> tuple[Array, Net]:
    noise_key, forward_key = jax.random.split(key)
    return forward(net, x + gaussian_noise(x, noise_key, sigma, 1)[:, 0], forward_key)
