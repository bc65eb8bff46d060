"""Standard training: the other end of the trade-off."""

import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.core import Array, Aux, Batch, Forward, Key, Loss, Net, train_forward


def standard(*, forward: Forward = train_forward) -> Loss:
    """Mean cross-entropy of clean examples. Metrics: clean_accuracy."""

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        logits, net = forward(net, batch.x, key)
        return jnp.mean(cross_entropy(logits, batch.y)), Aux(net.state, {"clean_accuracy": accuracy(logits, batch.y)})

    return loss


def accuracy(logits: Array, y: Array) -> Array:
    """Fraction of examples whose largest logit is their label; logits [B, K], y [B]."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == y, dtype=jnp.float32)
