"""What votes prove: CERTIFY and PREDICT of Cohen et al. 2019 (arXiv 1902.02918), section 3.2, on the host in float64.

The smoothed classifier is g(x) = argmax_k P(f(x + e) = k), e ~ N(0, sigma^2 I). All statements are about g, not about
the base classifier f, and each fails with probability at most alpha over the noise. They are for noise of real numbers:
what is drawn is float32, which a classifier made for it can tell apart (Voracek and Hein 2023, arXiv 2207.07209).
"""

from typing import Annotated, NamedTuple

import numpy as np
from scipy import special

from robustgen.certify.smoothing.votes import Plan, Votes
from robustgen.knobs import KnobError, Range, checked

ABSTAIN = -1
"""The prediction where the votes do not decide."""

Level = Annotated[float, Range(0, 0.5, open_low=True, open_high=True)]


class Smoothed(NamedTuple):
    """prediction [N] int32, ABSTAIN where p_lower < 1/2; p_lower [N], lower bound of P(f(x + e) = the selected class);
    radius [N] in L2, 0 where abstained: g is constant in the ball of that radius around x. float64."""

    prediction: np.ndarray
    p_lower: np.ndarray
    radius: np.ndarray


@checked
def certify(votes: Votes, plan: Plan, *, alpha: Level) -> Smoothed:
    """CERTIFY: the class with most selection votes, and radius = sigma Phi^-1(p_lower).

    Ties go to the lowest class, as in the official code (locuslab/smoothing, core.py). Cohen et al. take alpha = 0.001.
    Raises `KnobError` where the plan has no selection samples: choosing by the samples that judge would be no proof.
    """
    if plan.num_selection == 0:
        raise KnobError("num_selection", "must be >= 1 to certify: the class is chosen by samples of its own")
    selection, estimation = (np.asarray(counts, np.int64) for counts in votes)
    chosen = selection.argmax(-1)
    hits = np.take_along_axis(estimation, chosen[..., None], -1)[..., 0]
    p_lower = lower_confidence_bound(hits, plan.num_samples, alpha=alpha)
    decided = p_lower >= 0.5
    radius = np.where(decided, plan.sigma * special.ndtri(np.where(decided, p_lower, 0.5)), 0.0)
    return Smoothed(np.where(decided, chosen, ABSTAIN).astype(np.int32), p_lower, radius)


@checked
def predict(votes: Votes, *, alpha: Level) -> np.ndarray:
    """PREDICT: the class [N] int32 with most estimation votes, ABSTAIN where the runner-up is too close.

    That is where the two-sided binomial test of equal probabilities, given the votes for either of the two, has a
    p-value above alpha (Hung and Fithian 2019). A class handed back is g(x) with probability at least 1 - alpha.
    """
    counts = np.asarray(votes.estimation, np.int64)
    first, second = np.moveaxis(np.sort(counts, -1)[..., -2:], -1, 0)[::-1]
    p_value = np.minimum(1.0, 2 * special.bdtr(second, first + second, 0.5))
    return np.where(p_value > alpha, ABSTAIN, counts.argmax(-1)).astype(np.int32)


def lower_confidence_bound(successes: np.ndarray, n: int, *, alpha: float) -> np.ndarray:
    """Clopper and Pearson's (1934) one-sided bound: below a proportion with probability at least 1 - alpha, float64.

    The largest p with P(Binomial(n, p) >= successes) <= alpha; 0 for no success.
    """
    hits = np.asarray(successes, np.float64)
    return np.where(hits > 0, special.betaincinv(np.maximum(hits, 1), n - hits + 1, alpha), 0.0)


def margin_lower(p_lower: np.ndarray, eps: float, sigma: float) -> np.ndarray:
    """Lower bound [N] of P(f(x' + e) = chosen) - max_k P(f(x' + e) = k) over other k, for all ||x' - x||_2 <= eps.

    2 Phi(Phi^-1(p_lower) - eps / sigma) - 1: Cohen et al., theorem 1 at distance eps, with 1 - p for the runner-up, as
    CERTIFY has it. It is positive exactly where eps is less than the radius.
    """
    return 2 * special.ndtr(special.ndtri(p_lower) - np.divide(eps, sigma)) - 1
