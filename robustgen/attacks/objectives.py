"""Objectives: what an attack maximises, per example. Each is `(logits [B, K], target) -> [B]`, in float32."""

import jax
import jax.numpy as jnp

from robustgen.core import Array


def cross_entropy(logits: Array, y: Array) -> Array:
    """-log softmax(logits)_y, [B]; y [B] int32. Grows as the true class becomes unlikely."""
    return jax.nn.logsumexp(logits, axis=-1) - _at(logits, y)


def margin(logits: Array, y: Array) -> Array:
    """max_{k != y} logit_k - logit_y, [B]; y [B] int32. Positive exactly where the example is misclassified.

    The negative of `metrics`' margin, since attacks maximise; Carlini & Wagner 2017 (arXiv 1608.04644), f_6 unclipped.
    """
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return jnp.max(others, axis=-1) - _at(logits, y)


def kl(logits: Array, clean_logits: Array) -> Array:
    """KL(softmax(clean_logits) || softmax(logits)), [B]; clean_logits [B, K]. Zhang et al. 2019 (arXiv 1901.08573), eq. 5.

    The clean prediction is the reference, as in the official code (`KLDivLoss(log p(x'), p(x))`).
    """
    log_p, log_q = jax.nn.log_softmax(clean_logits), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _at(logits: Array, y: Array) -> Array:
    return jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
