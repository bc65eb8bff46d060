"""What votes prove, against exact binomial sums, published quantiles and closed forms; no sampling."""

import numpy as np
import pytest
from scipy import stats

from robustgen.certify.smoothing import ABSTAIN, Votes, certify, lower_confidence_bound, margin_lower, plan, predict
from robustgen.knobs import KnobError


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_the_bound_covers_at_least_as_often_as_it_says(n, alpha):
    """P(bound <= p) summed exactly over all outcomes, for p everywhere and just beside each bound, the worst places."""
    bounds = lower_confidence_bound(np.arange(n + 1), n, alpha=alpha)
    beside = np.concatenate([bounds[1:] - 1e-9, bounds[1:] + 1e-9])
    for p in np.concatenate([np.linspace(0, 1, 41), beside[(beside > 0) & (beside < 1)]]):
        covered = stats.binom.pmf(np.arange(n + 1), n, p)[bounds <= p].sum()
        assert covered >= 1 - alpha - 1e-12, (p, covered)
    assert np.all(np.diff(bounds) > 0) and bounds[0] == 0 and np.all(bounds <= np.arange(n + 1) / n)


@pytest.mark.parametrize(("hits", "n"), [(1, 10), (55, 100), (100, 100), (99_000, 100_000), (100_000, 100_000)])
def test_the_bound_is_the_root_of_the_binomial_tail(hits, n):
    p = float(lower_confidence_bound(np.asarray(hits), n, alpha=0.001))
    assert stats.binom.sf(hits - 1, n, p) == pytest.approx(0.001, rel=1e-9)


def test_all_of_100_000_votes_give_the_radius_that_papers_report():
    """Cohen et al. 2019, figure 5's cut-off: sigma Phi^-1(alpha^(1/n)), about 3.8 sigma for n = 100 000."""
    votes = Votes(np.asarray([[0, 100]]), np.asarray([[0, 100_000]]))
    found = certify(votes, plan(sigma=0.25, num_selection=100, num_samples=100_000), alpha=0.001)
    assert found.prediction == [1]
    assert found.radius[0] == pytest.approx(0.25 * stats.norm.isf(-np.expm1(np.log(0.001) / 100_000)), rel=1e-9)
    assert found.radius[0] / 0.25 == pytest.approx(3.81, abs=0.005)


def test_certify_chooses_by_selection_alone_and_abstains_below_one_half():
    drawn = plan(sigma=0.5, num_selection=10, num_samples=1000)
    estimation = np.asarray([[900, 100, 0], [900, 100, 0], [400, 600, 0]])
    votes = Votes(np.asarray([[9, 1, 0], [1, 9, 0], [5, 5, 0]]), estimation)
    found = certify(votes, drawn, alpha=0.001)
    p = stats.beta.ppf(0.001, 900, 101)
    np.testing.assert_array_equal(found.prediction, [0, ABSTAIN, ABSTAIN])  # the third is a tie: class 0, judged at 0.4
    np.testing.assert_allclose(found.p_lower[0], p, rtol=1e-12)
    np.testing.assert_allclose(found.radius, [0.5 * stats.norm.ppf(p), 0, 0], rtol=1e-12)
    assert found.radius.dtype == found.p_lower.dtype == np.float64


def test_certify_decides_from_one_half_on():
    """Around the least number of votes whose bound reaches 1/2."""
    drawn = plan(sigma=1.0, num_selection=1, num_samples=1000)
    least = next(k for k in range(1001) if stats.beta.ppf(0.001, k, 1001 - k) >= 0.5)
    votes = Votes(np.asarray([[1, 0]] * 2), np.asarray([[least - 1, 0], [least, 0]]))
    np.testing.assert_array_equal(certify(votes, drawn, alpha=0.001).prediction, [ABSTAIN, 0])


@pytest.mark.parametrize("counts", [(50, 50), (60, 40), (62, 37), (70, 30), (66, 33), (100, 0), (1, 0), (0, 0)])
def test_predict_is_the_two_sided_binomial_test(counts):
    first, second = max(counts), min(counts)
    p_value = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    expected = ABSTAIN if p_value > 0.01 else 2
    found = predict(Votes(np.zeros((1, 3), int), np.asarray([[second, 0, first]])), alpha=0.01)
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.parametrize("p", [0.5, 0.6, 0.99, 1 - 1e-6])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.7])
def test_margin_is_met_by_a_halfspace(p, eps):
    """The worst classifier of theorem 1 is a halfspace: its margin at distance eps is the bound."""
    sigma = 0.5
    offset = sigma * stats.norm.ppf(p)  # f = [<w, x> + offset > 0] at x = 0, |w| = 1
    at_worst = stats.norm.cdf((offset - eps) / sigma)
    assert margin_lower(np.asarray(p), eps, sigma) == pytest.approx(2 * at_worst - 1, abs=1e-12)


def test_what_cannot_be_proved_is_refused():
    votes = Votes(np.zeros((1, 2), int), np.asarray([[9, 1]]))
    with pytest.raises(KnobError, match="num_selection: must be >= 1 to certify"):
        certify(votes, plan(sigma=1.0, num_selection=0, num_samples=10), alpha=0.001)
    with pytest.raises(KnobError, match="alpha"):
        predict(votes, alpha=0.5)
    with pytest.raises(KnobError, match="num_samples"):
        plan(sigma=1.0, num_selection=100, num_samples=2**31 - 100)
