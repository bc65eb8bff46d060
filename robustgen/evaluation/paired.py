"""Two accuracies on the same examples: the counts they differ in, an interval, and tests on those examples alone.

`first`, `second` are bool [N], right or not. What is random is the draw of the examples: answers are about these two
nets (or attacks), not about training again; `intervals.paired_difference` is for several seeds.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from robustgen.core import Estimate
from robustgen.evaluation.intervals import Confidence, Difference, wilson
from robustgen.knobs import Count, CountOrZero, checked


class Paired(NamedTuple):
    """The paired 2 x 2 table: examples that both, only the first, only the second, or neither is right on."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        return sum(self)


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """The counts of `first`, `second`, bool [N] each. Raises ValueError where their lengths differ or are 0."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"needs two bool [N] of one length N > 0; got shapes {first.shape} and {second.shape}")
    return Paired(*(int(np.sum(cell)) for cell in (first & second, first & ~second, ~first & second, ~first & ~second)))


def mcnemar_mid_p(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided mid-p value of McNemar's test: tables as likely as the one seen count half.

    Fagerland, Lydersen & Laake 2013 (BMC Med. Research Methodology 13:91; supplement, equation 2; 1 - f / 2 where the
    discordant counts are equal). Smaller than the exact `mcnemar`, which errs to the safe side; not guaranteed to
    keep the level, though it did in all 9595 of their scenarios.
    """
    table = paired(first, second)
    disagree, fewer = table.only_first + table.only_second, min(table.only_first, table.only_second)
    seen = stats.binom.pmf(fewer, disagree, 0.5)
    if table.only_first == table.only_second:
        return float(1 - seen / 2) if disagree else 1.0
    return float(2 * stats.binom.cdf(fewer, disagree, 0.5) - seen)


@checked
def newcombe_paired(first: np.ndarray, second: np.ndarray, confidence: Confidence = 0.95) -> Estimate:
    """Interval of accuracy(first) - accuracy(second): Newcombe 1998 (Statistics in Medicine 17, 2635), method 10.

    Wilson's intervals of both, joined by the correlation phi with its continuity correction. Wider than 0 where the two
    never differ, as it should be: Wald's interval is not.
    """
    table = paired(first, second)
    n = table.n
    one = wilson(table.both + table.only_first, n, confidence)
    two = wilson(table.both + table.only_second, n, confidence)
    phi, value = _phi(table), (table.only_first - table.only_second) / n
    down = _joined(one.value - one.lower, two.upper - two.value, phi)
    up = _joined(one.upper - one.value, two.value - two.lower, phi)
    return Estimate(value, value - down, value + up, n)


@checked
def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, num_resamples: Count, seed: CountOrZero, confidence: Confidence = 0.95
) -> Difference:
    """Difference of accuracies with its percentile interval and two-sided p-value, from resampled examples.

    An example is drawn with both its outcomes (Efron & Tibshirani 1993, sections 13.3 and 16.4). p is the share of
    resamples that lie as far from the difference seen as that lies from 0, counted with the sample itself (Davison &
    Hinkley 1997, equation 4.11), so never below 1 / (num_resamples + 1). Where the two never differ, no resample does:
    the interval is [0, 0], which claims too much; that of `newcombe_paired` does not.
    """
    table = paired(first, second)
    n, value = table.n, (table.only_first - table.only_second) / table.n
    shares = np.array([table.only_first, table.only_second, table.both + table.neither]) / n
    # resampled counts are all that the difference needs, and they are multinomial: no [num_resamples, N] of indices
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=num_resamples)
    net = drawn[:, 0] - drawn[:, 1]
    seen = table.only_first - table.only_second
    p = (1 + int(np.sum(np.abs(net - seen) >= abs(seen)))) / (num_resamples + 1)
    lower, upper = np.quantile(net / n, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(Estimate(value, float(lower), float(upper), n), p)


def _phi(table: Paired) -> float:
    """Correlation of the two outcomes, moved towards 0 by n / 2 where it is positive."""
    product = table.both * table.neither - table.only_first * table.only_second
    corrected = max(product - table.n / 2, 0.0) if product > 0 else float(product)
    right = (table.both + table.only_first, table.both + table.only_second)
    spread = float(np.prod([float(k) * (table.n - k) for k in right]))
    return corrected / np.sqrt(spread) if spread else 0.0


def _joined(one: float, two: float, phi: float) -> float:
    return float(np.sqrt(max(one**2 - 2 * phi * one * two + two**2, 0.0)))
