"""Quantiles of minimal distances and security curves: by hand, by simulation, and in the corners."""

import numpy as np
import pytest
from scipy import stats

from robustgen.evaluation.distances import median, quantile, security_curve
from robustgen.evaluation.intervals import wilson
from robustgen.knobs import KnobError

SEVEN = np.array([0.0, 0.3, np.inf, 0.1, 0.2, 0.3, 0.4])


def test_security_curve_counts_what_lies_beyond():
    curve = security_curve(SEVEN, [0.0, 0.1, 0.3, 5.0])
    assert curve == [wilson(k, 7) for k in (6, 5, 2, 1)]


def test_median_by_hand():
    """Ranks 1 and 7 of 7: P(Binomial(7, 1/2) <= 0) = 0.8 % is within 2.5 %, P(<= 1) = 6.3 % is not."""
    assert median(SEVEN) == (0.3, 0.0, np.inf, 7)
    assert quantile(SEVEN[SEVEN < 1], 1.0) == (0.4, 0.4, np.inf, 6)
    assert quantile(SEVEN, 0.0)[:2] == (0.0, 0.0)
    assert median(np.array([0.5])) == (0.5, 0.0, np.inf, 1)  # one example says nothing


def test_a_quantile_is_where_the_curve_falls_below():
    draw = np.random.default_rng(0)
    for n in (10, 33):
        found = draw.exponential(1.0, n)
        for q in (0.1, 0.5, 0.9):
            value = quantile(found, q).value
            at, before = (security_curve(found, [eps])[0].value for eps in (value, np.nextafter(value, 0)))
            assert at <= 1 - q + 1e-12 < before + 1e-9


def test_nothing_found_is_an_infinite_median():
    assert median(np.full(50, np.inf)) == (np.inf, np.inf, np.inf, 50)
    assert median(np.zeros(50)) == (0.0, 0.0, 0.0, 50)


@pytest.mark.parametrize(("n", "q"), [(20, 0.5), (100, 0.5), (100, 0.9)])
def test_the_interval_covers_as_often_as_it_says(n, q):
    """And not much more: by one rank, at each end, it would cover too rarely."""
    draw = np.random.default_rng(n).exponential(1.0, (4000, n))
    found = [quantile(row, q) for row in draw]
    truth = -np.log(1 - q)
    covered = np.mean([low <= truth <= high for _, low, high, _ in found])
    exact = stats.binom(n, q)
    pairs = zip(draw[:5], found[:5], strict=True)
    ranks = np.array([np.searchsorted(np.sort(row), [e.lower, e.upper]) + 1 for row, e in pairs])
    low, high = ranks[0]
    assert np.all(ranks == ranks[0])
    assert exact.cdf(low - 1) <= 0.025 < exact.cdf(low) and exact.sf(high - 1) <= 0.025 < exact.sf(high - 2)
    assert 0.945 <= covered <= 0.985


@pytest.mark.parametrize("wrong", [np.array([]), np.array([0.1, np.nan]), np.array([-0.1]), np.ones((2, 2))])
def test_what_is_no_distance_is_refused(wrong):
    for measure in (median, lambda d: security_curve(d, [0.1])):
        with pytest.raises(KnobError, match="distances"):
            measure(wrong)
    with pytest.raises(KnobError, match="eps"):
        security_curve(SEVEN, [-1.0])
