"""Denoised smoothing: a frozen classifier, never trained on noise, made smoothable by a denoiser before it."""

import jax

from robustgen.core import Array, LogitsFn, Net


def denoised(denoiser: LogitsFn, classifier: LogitsFn) -> LogitsFn:
    """x -> classifier(denoiser(x)). Salman et al. 2020 (arXiv 2003.01908), section 3: the base classifier to smooth.

    `denoiser` maps x [B, ...] to x of the same shape; both may be `Net`s. The result is a pytree of the two, so that
    compiled functions take their parameters as arguments. What is certified is the composition; attacks see through it.
    """
    return jax.tree_util.Partial(_composed, _as_pytree(denoiser), _as_pytree(classifier))


def _composed(denoiser: LogitsFn, classifier: LogitsFn, x: Array) -> Array:
    return classifier(denoiser(x))


def _as_pytree(function: LogitsFn) -> LogitsFn:
    known = isinstance(function, (Net, jax.tree_util.Partial))
    return function if known else jax.tree_util.Partial(function)  # a bare function is no pytree
