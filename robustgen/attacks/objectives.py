"""Objectives: what an attack maximises, per example. Each is `(logits [B, K], target) -> [B]`, in float32."""

import jax
import jax.numpy as jnp

from robustgen.core import Array

_TINY = 1e-12  # the official AutoAttack's


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
    """KL(softmax(clean_logits) || softmax(logits)), [B]; clean_logits [B, K].

    Zhang et al. 2019 (arXiv 1901.08573), eq. 5. The clean prediction is the reference, as in the official code
    (`KLDivLoss(log p(x'), p(x))`).
    """
    log_p, log_q = jax.nn.log_softmax(clean_logits), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def dlr(logits: Array, y: Array) -> Array:
    """(max_{k != y} logit_k - logit_y) / (z_1 - z_3), z the logits sorted downwards, [B]; y [B] int32.

    Difference of logits ratio, Croce & Hein 2020 (arXiv 2003.01690), eq. 6: shift- and scale-free. With 2 classes there
    is no z_3 and a ratio of differences is constant: the margin itself stands in.
    """
    if logits.shape[-1] < 3:
        return margin(logits, y)
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, y) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Array, goal: tuple[Array, Array]) -> Array:
    """(logit_t - logit_y) / (z_1 - (z_3 + z_4) / 2), [B], goal = (y, t) [B] int32 each.

    Croce & Hein 2020 (arXiv 2003.01690), eq. 7. With 3 classes the denominator is z_1 - z_3, with 2 there is none.
    """
    y, target = goal
    difference = multi_targeted(logits, goal)
    if logits.shape[-1] < 3:
        return difference
    top = jax.lax.top_k(logits, min(4, logits.shape[-1]))[0]
    return difference / (top[:, 0] - jnp.mean(top[:, 2:], axis=-1) + _TINY)


def multi_targeted(logits: Array, goal: tuple[Array, Array]) -> Array:
    """logit_t - logit_y, [B], goal = (y, t) [B] int32 each: what MultiTargeted maximises, Gowal et al. 2019
    (arXiv 1910.09338), eq. 3, and FAB's linearisation."""
    y, target = goal
    return _at(logits, target) - _at(logits, y)


def _at(logits: Array, y: Array) -> Array:
    return jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
