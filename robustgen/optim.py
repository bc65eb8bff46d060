"""Optimizers: optax, with ranges on the knobs and weight decay on the leaves that papers decay.

`learning_rate` is a number, a tracer (in a population every member has its own) or a function of the step.
"""

from collections.abc import Callable

import jax
import optax

from robustgen.core import PyTree
from robustgen.knobs import Decay, NonNegative, Positive, checked
from robustgen.schedules import Schedule


@checked
def sgd(
    *, learning_rate: Positive | Schedule, momentum: Decay, weight_decay: NonNegative, nesterov: bool = False
) -> optax.GradientTransformation:
    """SGD with momentum as in PyTorch: weight decay joins the gradient before the momentum, on every parameter."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    )


@checked
def adam(
    *, learning_rate: Positive | Schedule, clip_norm: Positive | None = None
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), after clipping the global gradient norm to `clip_norm` if given."""
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, optax.adam(learning_rate))


@checked
def adamw(
    *, learning_rate: Positive | Schedule, weight_decay: NonNegative, mask: Callable[[PyTree], PyTree] | None = None
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), decaying the leaves that `mask` marks (default: matrices)."""
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask or matrices)


def matrices(params: PyTree) -> PyTree:
    """True for kernels (two dimensions and more), False for biases and batch-norm scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
