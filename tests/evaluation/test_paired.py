"""Paired tests and intervals against published examples and against counting every case."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robustgen.evaluation.intervals import clopper_pearson, mcnemar
from robustgen.evaluation.paired import Paired, mcnemar_mid_p, newcombe_paired, paired, paired_bootstrap
from robustgen.knobs import KnobError

BENTUR, CAVO = Paired(1, 1, 7, 12), Paired(59, 6, 16, 80)  # the examples of Fagerland, Lydersen & Laake 2013


def outcomes(table):
    """Two bool [N] with these counts."""
    cells = np.repeat(np.arange(4), table)
    return (cells == 0) | (cells == 1), (cells == 0) | (cells == 2)


@pytest.mark.parametrize("table", [BENTUR, CAVO, Paired(0, 0, 0, 3), Paired(3, 2, 1, 0)])
def test_counts(table):
    assert paired(*outcomes(table)) == table and table.n == len(outcomes(table)[0])


@pytest.mark.parametrize(("table", "exact", "mid_p"), [(BENTUR, 0.0703, 0.0391), (CAVO, 0.0525, 0.0347)])
def test_mcnemar_published(table, exact, mid_p):
    assert round(mcnemar(*outcomes(table)), 4) == exact and round(mcnemar_mid_p(*outcomes(table)), 4) == mid_p


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 3), (2, 7), (9, 1), (5, 6)])
def test_mcnemar_by_turning_every_discordant_pair(only_first, only_second):
    first, second = outcomes(Paired(4, only_first, only_second, 3))
    signs = itertools.product((-1, 1), repeat=only_first + only_second)
    turned, seen = np.array([abs(sum(turn)) for turn in signs]), abs(only_first - only_second)
    assert mcnemar(first, second) == pytest.approx(np.mean(turned >= seen), abs=1e-12)
    mid_p = np.mean(turned > seen) + np.mean(turned == seen) / 2
    assert mcnemar_mid_p(first, second) == pytest.approx(mid_p if only_first + only_second else 1.0, abs=1e-12)
    assert mcnemar_mid_p(second, first) == mcnemar_mid_p(first, second)


def test_newcombe_paired_published():
    # R package contingencytables (Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables, chapter 8)
    found = newcombe_paired(*outcomes(CAVO))
    assert [round(v, 4) for v in found[:3]] == [-0.0621, -0.1186, -0.0046] and found.n == 161


def every_table(n):
    return [Paired(a, b, c, n - a - b - c) for a, b, c in itertools.product(range(n + 1), repeat=3) if a + b + c <= n]


def probability(table, shares):
    ways = math.factorial(table.n) / math.prod(math.factorial(k) for k in table)
    return ways * math.prod(p**k for p, k in zip(shares, table, strict=True))


def test_newcombe_paired_covers():
    """Exact coverage at n = 14, by enumerating every table; the nominal 95 % is a mean over parameters."""
    found = {table: newcombe_paired(*outcomes(table)) for table in every_table(14)}
    covered = []
    for shares in np.random.default_rng(0).dirichlet([2, 1, 1, 1], 40):
        theta = shares[1] - shares[2]
        covered.append(sum(probability(t, shares) for t, e in found.items() if e.lower <= theta <= e.upper))
    assert 0.94 < np.mean(covered) < 0.98 and min(covered) > 0.88
    assert all(-1 <= e.lower <= e.value <= e.upper <= 1 for e in found.values())


@pytest.mark.parametrize("table", [Paired(1, 3, 1, 1), Paired(2, 0, 2, 2), Paired(0, 2, 2, 1)])
def test_bootstrap_against_every_resample(table):
    """All n^n resamples of n <= 6 examples: the shares that 200,000 drawn ones estimate."""
    first, second = outcomes(table)
    each = first.astype(int) - second
    every = np.array([each[list(rows)].sum() for rows in itertools.product(range(table.n), repeat=table.n)])
    found = paired_bootstrap(first, second, num_resamples=200_000, seed=0)
    assert found.p == pytest.approx(np.mean(np.abs(every - each.sum()) >= abs(each.sum())), abs=0.005)
    low, high = np.quantile(every / table.n, [0.025, 0.975], method="inverted_cdf")
    assert found.estimate[:3] == pytest.approx((each.mean(), low, high), abs=1e-12)


def test_bootstrap_is_of_its_seed_and_near_the_normal_answer():
    first, second = outcomes(Paired(500, 60, 30, 410))
    found, again, other = (paired_bootstrap(first, second, num_resamples=20_000, seed=s) for s in (1, 1, 2))
    assert found == again and found != other
    error = np.std(first.astype(float) - second, ddof=1) / np.sqrt(1000)
    assert found.estimate[1:3] == pytest.approx((0.03 - 1.96 * error, 0.03 + 1.96 * error), abs=0.002)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.03 / error), abs=0.002)
    assert paired_bootstrap(first, first, num_resamples=99, seed=0) == ((0.0, 0.0, 0.0, 1000), 1.0)
    assert paired_bootstrap(first, ~first, num_resamples=99, seed=0).p == 0.01  # all 99 nearer than what was seen


def test_clopper_pearson_covers_everywhere_by_enumeration():
    for n in (1, 7, 30):
        found = [clopper_pearson(k, n) for k in range(n + 1)]
        for p in np.linspace(0.001, 0.999, 333):
            inside = [k for k, e in enumerate(found) if e.lower <= p <= e.upper]
            assert stats.binom.pmf(inside, n, p).sum() >= 0.95 - 1e-12


def test_refusals():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\)"):
        paired(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(KnobError, match="num_resamples"):
        paired_bootstrap(np.ones(3, bool), np.ones(3, bool), num_resamples=0, seed=0)
