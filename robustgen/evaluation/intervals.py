"""How sure a measured number is: intervals for accuracies, for means over seeds, and tests of paired differences.

Host-side NumPy in float64. An accuracy over n examples has a `wilson` interval, which says how far another sample of
examples would move it; a mean over seeds has a `t_interval`, which says how far training again would. Neither contains
the other, so reports show both.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from scipy import special

from robustgen.core import Array, Estimate
from robustgen.knobs import Count, KnobError, NonNegative, Range, checked

Confidence = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


@checked
def wilson(successes: NonNegative, n: Count, confidence: Confidence = 0.95) -> Estimate:
    """Score interval of a proportion (Wilson 1927, eq. 4 of Brown, Cai and DasGupta 2001).

    `successes` may be fractional: n times a mean accuracy over seeds. Raises `KnobError` where it exceeds n.
    """
    _within(successes, n)
    z = special.ndtri(0.5 + confidence / 2)
    p, width = successes / n, 1 + z**2 / n
    middle = (p + z**2 / (2 * n)) / width
    half = z / width * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(float(p), float(min(max(middle - half, 0.0), p)), float(max(min(middle + half, 1.0), p)), int(n))


@checked
def clopper_pearson(successes: NonNegative, n: Count, confidence: Confidence = 0.95) -> Estimate:
    """Exact interval of a proportion (Clopper and Pearson 1934): never covers less often than `confidence`."""
    _within(successes, n)
    tail = (1 - confidence) / 2
    lower = special.betaincinv(successes, n - successes + 1, tail) if successes > 0 else 0.0
    upper = special.betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return Estimate(float(successes / n), float(lower), float(upper), int(n))


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Student's interval of the mean of independent `values` [n], one a seed, with the n - 1 standard deviation.

    One value says nothing of the spread: its interval is (-inf, inf).
    """
    values = np.asarray(values, np.float64)
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Estimate(mean, -np.inf, np.inf, 1)
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """Interval of first - second for two independent proportions (Newcombe 1998, method 10); n is the smaller."""
    value = first.value - second.value
    down = np.hypot(first.value - first.lower, second.upper - second.value)
    up = np.hypot(first.upper - first.value, second.value - second.lower)
    return Estimate(value, float(value - down), float(value + up), min(first.n, second.n))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value that two classifiers are equally often right on the same examples, bool [N] each.

    The exact binomial form (McNemar 1947): only examples that they disagree on count.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    disagree = only_first + only_second
    return 1.0 if disagree == 0 else float(min(1.0, 2 * special.bdtr(min(only_first, only_second), disagree, 0.5)))


class Difference(NamedTuple):
    """first - second with its interval (n counts examples), and the p-value of no difference."""

    estimate: Estimate
    p: float


def paired_difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Difference of two methods' accuracies on the same N examples; `first` [S, N], `second` [T, N] bool, over seeds.

    Both the examples and the seeds are taken as drawn at random: the variance is that of the per-example differences
    of seed means over N, plus that of each method's seed means over its seeds, with Satterthwaite's degrees of freedom.
    The example-seed interaction is counted twice, so the test errs to the safe side. A bootstrap over three seeds would
    not: it sees a third too little of their variance. With one seed a side the examples alone are random, and the
    answer is about these two nets, not about their methods.
    """
    first, second = np.atleast_2d(np.asarray(first, np.float64)), np.atleast_2d(np.asarray(second, np.float64))
    per_example = first.mean(0) - second.mean(0)
    parts = [_squared_error(per_example), _squared_error(first.mean(1)), _squared_error(second.mean(1))]
    variance = sum(part for part, _ in parts)
    value, n = float(per_example.mean()), per_example.size
    if variance == 0:
        return Difference(Estimate(value, value, value, n), 1.0 if value == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts if degrees)
    error = np.sqrt(variance)
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2) * error)
    p = float(2 * special.stdtr(freedom, -abs(value) / error))
    return Difference(Estimate(value, value - half, value + half, n), p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down adjustment of m p-values: compare each with the level, and m tests err together at it."""
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _squared_error(values: np.ndarray) -> tuple[float, int]:
    """Squared standard error of the mean of `values` [n], and its degrees of freedom."""
    n = len(values)
    return (float(np.var(values, ddof=1) / n), n - 1) if n > 1 else (0.0, 0)


def _within(successes: float | Array, n: int) -> None:
    if successes > n:
        raise KnobError("successes", f"must not exceed n = {n}; got {successes}")
