"""Intervals against published and independently computed values, and against simulation."""

import numpy as np
import pytest
from scipy import stats

from robustgen.evaluation.intervals import (
    clopper_pearson,
    holm,
    mcnemar,
    newcombe,
    paired_difference,
    t_interval,
    wilson,
)
from robustgen.knobs import KnobError


@pytest.mark.parametrize("successes, n", [(0, 10), (10, 10), (1, 500), (245, 500), (3, 7)])
def test_proportions_against_scipy(successes, n):
    for ours, method in [(wilson, "wilson"), (clopper_pearson, "exact")]:
        theirs = stats.binomtest(successes, n).proportion_ci(method=method)
        estimate = ours(successes, n)
        np.testing.assert_allclose([estimate.lower, estimate.upper], [theirs.low, theirs.high], atol=1e-12)
        assert estimate.value == successes / n and estimate.n == n


def test_wilson_published_value():
    # Newcombe 1998 (Statistics in Medicine 17, 857), table I, 81 of 263: 0.2553 to 0.3662
    estimate = wilson(81, 263)
    assert (round(estimate.lower, 4), round(estimate.upper, 4)) == (0.2553, 0.3662)


def test_newcombe_published_value():
    # Newcombe 1998 (Statistics in Medicine 17, 873), table II (a), method 10: 56/70 - 48/80 = 0.2000, 0.0524 to 0.3339
    difference = newcombe(wilson(56, 70), wilson(48, 80))
    assert [round(v, 4) for v in difference[:3]] == [0.2, 0.0524, 0.3339]


@pytest.mark.parametrize("interval, low, high", [(wilson, 0.94, 0.96), (clopper_pearson, 0.95, 0.985)])
def test_coverage_of_proportions(interval, low, high):
    draw, covered = np.random.default_rng(0), []
    for p in draw.uniform(0.02, 0.98, 100):
        found = {k: interval(int(k), 100) for k in range(101)}
        covered += [found[k].lower <= p <= found[k].upper for k in draw.binomial(100, p, 100)]
    assert low <= np.mean(covered) <= high


def test_t_interval_against_scipy_and_coverage():
    values = [0.981, 0.975, 0.99]
    theirs = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(t_interval(values)[1:3], theirs, atol=1e-12)
    intervals = [t_interval(row) for row in np.random.default_rng(1).normal(0.5, 0.1, (4000, 3))]
    assert abs(np.mean([e.lower <= 0.5 <= e.upper for e in intervals]) - 0.95) < 0.01
    assert t_interval([0.5]) == (0.5, -np.inf, np.inf, 1)


def test_mcnemar_against_scipy():
    draw = np.random.default_rng(2)
    a, b = draw.random(200) < 0.9, draw.random(200) < 0.8
    only_a, only_b = np.sum(a & ~b), np.sum(b & ~a)
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, abs=1e-12)
    assert mcnemar(a, a) == 1.0


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])


def test_paired_difference_with_one_seed_is_the_paired_t_test():
    draw = np.random.default_rng(3)
    a, b = draw.random((2, 300)) < [[0.9], [0.8]]
    theirs = stats.ttest_rel(a.astype(float), b.astype(float))
    found = paired_difference(a, b)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    np.testing.assert_allclose(found.estimate[1:3], theirs.confidence_interval(0.95), atol=1e-12)
    assert paired_difference(a, a).p == 1.0 and paired_difference(a, ~a & False).estimate.n == 300


def test_paired_difference_errs_to_the_safe_side():
    """Two equal methods whose seeds differ by luck: examples and seeds both random, level 5 %."""
    draw, rejected, naive = np.random.default_rng(4), [], []
    for _ in range(1500):
        easy = draw.normal(1.0, 1.0, 150)
        luck = draw.normal(0, 0.3, (2, 3, 1))
        hits = easy + luck + draw.normal(0, 0.5, (2, 3, 150)) > 0
        rejected.append(paired_difference(*hits).p < 0.05)
        naive.append(mcnemar(*hits.reshape(2, -1)) < 0.05)
    assert 0.005 < np.mean(rejected) < 0.06
    assert np.mean(naive) > 0.2  # what pooling seeds as if they were examples would do


@pytest.mark.parametrize("args", [(-1, 10), (11, 10), (1, 0), (float("nan"), 10)])
def test_refuses_what_is_no_proportion(args):
    for interval in (wilson, clopper_pearson):
        with pytest.raises(KnobError):
            interval(*args)
