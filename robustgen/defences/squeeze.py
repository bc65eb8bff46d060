"""Feature squeezing: fewer bits, medians, and rejecting where they disagree. Xu et al. 2018 (arXiv 1704.01155)."""

from typing import Annotated, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, LogitsFn
from robustgen.defences.transforms import RandomLogitsFn, Transform
from robustgen.knobs import Count, KnobError, NonNegative, Range, checked
from robustgen.spread import example_keys


@checked
def bit_depth(*, bits: Annotated[int, Range(1, 16)]) -> Transform:
    """round((2^bits - 1) x) / (2^bits - 1), for inputs of any shape. Section III-A; half to even, as the official code.

    Its derivative is zero almost everywhere; `bpda` with the identity is the adaptive attack (arXiv 1802.00420, 5.3).
    """

    def reduce(x: Array, keys: Key) -> Array:
        del keys
        top = 2**bits - 1
        return jnp.round(x * top) / top

    return reduce


@checked
def median(*, size: Count) -> Transform:
    """Median of the size x size window around each pixel of x [B, H, W, C], channels apart. Section III-B.

    As `scipy.ndimage.median_filter(mode="reflect")`, which the official code calls: edges mirrored with the edge pixel
    repeated; for even sizes the pixel is at the window's lower right and the median is the upper one of the middle two.
    The derivative passes one pixel of each window; `bpda` with the identity is the adaptive attack.
    """

    def smooth(x: Array, keys: Key) -> Array:
        del keys
        before, after = size // 2, (size - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), mode="symmetric")
        height, width = x.shape[1:3]
        shifted = [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        return jnp.sort(jnp.stack(shifted), axis=0)[size * size // 2]

    return smooth


def disagreement(logits_fn: LogitsFn, squeezers: Sequence[Transform]) -> RandomLogitsFn:
    """(x, key) -> score [B] in [0, 2]: max over squeezers of ||softmax(f(x)) - softmax(f(squeezed x))||_1. Eq. 1 and 2.

    Raises `KnobError` without a squeezer.
    """
    if not squeezers:
        raise KnobError("squeezers", "must name at least one transform")

    def score(x: Array, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])
        plain = jax.nn.softmax(logits_fn(x))
        squeezed = [jax.nn.softmax(logits_fn(squeeze(x, keys))) for squeeze in squeezers]
        return jnp.max(jnp.stack([jnp.sum(jnp.abs(plain - other), axis=-1) for other in squeezed]), axis=0)

    return score


@checked
def threshold_at(scores: np.ndarray, *, false_positive_rate: Annotated[float, Range(0, 1, open_high=True)]) -> float:
    """The score that at most this part of clean `scores` [N] exceeds. Section V-A (the paper takes 0.05)."""
    ordered = np.sort(np.asarray(scores, np.float64))
    return float(ordered[len(ordered) - 1 - int(len(ordered) * false_positive_rate + 1e-9)])


@checked
def rejecting(logits_fn: LogitsFn, squeezers: Sequence[Transform], *, threshold: NonNegative) -> RandomLogitsFn:
    """Joint prediction: (x, key) -> logits [B, K + 1], whose last class means "adversarial, rejected". Section V.

    The last logit is max_k logit_k + score - threshold: it wins exactly where the score exceeds the threshold. One
    function to attack, in the manner of Carlini and Wagner 2017 (arXiv 1705.07263, section 4.2), who multiply where
    this adds, which needs no positive logits. `attacks.undetected_margin` is what its adaptive attack maximises,
    with every squeezer under `bpda`: attacking model and detector together is what broke it (He et al. 2017, arXiv
    1706.04701).
    """
    score = disagreement(logits_fn, squeezers)

    def joint(x: Array, key: Key) -> Array:
        logits = logits_fn(x)
        rejected = jnp.max(logits, axis=-1) + score(x, key) - threshold
        return jnp.concatenate([logits, rejected[:, None]], axis=-1)

    return joint
