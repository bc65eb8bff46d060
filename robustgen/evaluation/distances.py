"""How far an input must move to be misclassified: quantiles of minimal distances, and accuracy against the radius.

`distances` [N] are one run of a minimal-norm attack: 0 where the input is misclassified as it is, infinite where
nothing was found. The attack finds a point, not the nearest: medians and accuracies are upper bounds of the true ones.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from robustgen.core import Estimate
from robustgen.evaluation.intervals import Confidence, wilson
from robustgen.knobs import Fraction, KnobError, checked


@checked
def quantile(distances: np.ndarray, q: Fraction, confidence: Confidence = 0.95) -> Estimate:
    """The least distance that at least a share `q` of the examples is within, and its interval.

    The interval is between two order statistics (David and Nagaraja 2003, Order Statistics, section 7.1): it assumes
    nothing of the distribution and covers at least as often as `confidence`, ties and infinite distances included. It
    reaches to 0, or to infinity, where there are too few examples to say more. Raises `KnobError` for a distance that
    is negative or NaN.
    """
    ordered = np.sort(_valid(distances))
    n, tail = len(ordered), (1 - confidence) / 2
    below = special.bdtr(np.arange(n), n, q) if q < 1 else np.zeros(n)  # P(Binomial(n, q) <= k), for k < n
    low, high = int(np.sum(below <= tail)), int(np.sum(below < 1 - tail))  # ranks, from 1
    padded = np.concatenate([[0.0], ordered, [np.inf]])
    value = ordered[max(int(np.ceil(n * q - 1e-9)), 1) - 1]
    return Estimate(float(value), float(min(padded[low], value)), float(max(padded[high + 1], value)), n)


@checked
def median(distances: np.ndarray, confidence: Confidence = 0.95) -> Estimate:
    """The quantile of one half: for an even number of examples, the lower of the two in the middle."""
    return quantile(distances, 0.5, confidence)


@checked
def security_curve(distances: np.ndarray, eps: Sequence[float], confidence: Confidence = 0.95) -> list[Estimate]:
    """Accuracy under an adversary of each radius in `eps`: the share of distances above it, Wilson interval.

    An example broken at exactly eps counts as broken, one misclassified as it is at every radius. Intervals are for
    one radius each, not for the whole curve.
    """
    found, radii = _valid(distances), np.asarray(eps, np.float64)
    if radii.ndim != 1 or not np.all(radii >= 0):
        raise KnobError("eps", f"must be a list of radii >= 0; got {eps}")
    return [wilson(int(np.sum(found > radius)), len(found), confidence) for radius in radii]


def _valid(distances: np.ndarray) -> np.ndarray:
    found = np.asarray(distances, np.float64)
    if found.ndim != 1 or len(found) == 0 or not np.all(found >= 0):
        raise KnobError("distances", "must be one number >= 0 an example, of one example at least")
    return found
