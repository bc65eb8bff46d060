"""Is A better than B? Two nets, two methods or two attacks, paired on the examples that both were measured on.

    a, b = Side("TRADES", [columns_a], robust), Side("PGD-AT", [columns_b], robust)
    compare(a, b, mid_p_test())                              one `Comparison`
    pairwise([a, b, c], exact_test())                        all pairs, p-values adjusted together (Holm 1979)

Two attacks on one net are two sides with the same columns: `robust_to("PGD")` and `robust_to("Square")`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from robustgen.core import Estimate
from robustgen.evaluation import metrics
from robustgen.evaluation.columns import Columns
from robustgen.evaluation.intervals import Confidence, Difference, holm, mcnemar, paired_difference
from robustgen.evaluation.metrics import Outcome
from robustgen.evaluation.paired import mcnemar_mid_p, newcombe_paired, paired, paired_bootstrap
from robustgen.knobs import Count, CountOrZero, checked


class ComparisonError(ValueError):
    """What cannot be compared, in one line."""


class Side(NamedTuple):
    """What is compared: the columns of `runs`, one a seed, on the same examples, judged by `outcome`."""

    name: str
    runs: Sequence[Columns]
    outcome: Outcome


class PairedTest(NamedTuple):
    """run(first [S, N], second [T, N], bool, a row a seed) -> the difference with its interval, and a p-value."""

    name: str
    run: Callable[[np.ndarray, np.ndarray], Difference]


class Comparison(NamedTuple):
    """first - second. `p_value` is of no difference, `p_holm` adjusted over all pairs compared with this one (or None).

    `only_first`, `only_second` count the examples that one alone is right on; None with several seeds a side.
    """

    first: str
    second: str
    difference: Estimate
    p_value: float
    test: str
    n: int
    only_first: int | None
    only_second: int | None
    p_holm: float | None = None


@checked
def exact_test(confidence: Confidence = 0.95) -> PairedTest:
    """`mcnemar`, exact, with Newcombe's paired interval. One seed a side.

    The test errs to the safe side and the interval does not invert it: near the level they may disagree.
    """

    def run(first: np.ndarray, second: np.ndarray) -> Difference:
        return Difference(newcombe_paired(first, second, confidence), mcnemar(first, second))

    return PairedTest("McNemar, exact", _one_seed(run))


@checked
def mid_p_test(confidence: Confidence = 0.95) -> PairedTest:
    """`mcnemar_mid_p` with Newcombe's paired interval. One seed a side."""

    def run(first: np.ndarray, second: np.ndarray) -> Difference:
        return Difference(newcombe_paired(first, second, confidence), mcnemar_mid_p(first, second))

    return PairedTest("McNemar, mid-p", _one_seed(run))


@checked
def bootstrap_test(*, num_resamples: Count, seed: CountOrZero, confidence: Confidence = 0.95) -> PairedTest:
    """`paired_bootstrap` over examples. One seed a side."""

    def run(first: np.ndarray, second: np.ndarray) -> Difference:
        return paired_bootstrap(first, second, num_resamples=num_resamples, seed=seed, confidence=confidence)

    return PairedTest(f"paired bootstrap, {num_resamples} resamples", _one_seed(run))


@checked
def seeds_test(confidence: Confidence = 0.95) -> PairedTest:
    """`paired_difference`: examples and seeds both drawn at random. The one that speaks of methods, not of nets."""
    return PairedTest("Student's t over examples and seeds", lambda a, b: paired_difference(a, b, confidence))


def compare(first: Side, second: Side, test: PairedTest) -> Comparison:
    """`first` against `second`. Raises `ComparisonError` unless both were measured on the same examples, in order."""
    _refuse_others(first, second)
    a, b = _hits(first), _hits(second)
    found = test.run(a, b)
    table = paired(a[0], b[0]) if len(a) == len(b) == 1 else None
    counts = (None, None) if table is None else (table.only_first, table.only_second)
    return Comparison(first.name, second.name, found.estimate, found.p, test.name, a.shape[1], *counts)


def pairwise(sides: Sequence[Side], test: PairedTest) -> list[Comparison]:
    """Every pair of `sides`, in their order, with p-values adjusted over all of them (`holm`). Raises as `compare`."""
    found = [compare(first, second, test) for first, second in itertools.combinations(sides, 2)]
    adjusted = holm([comparison.p_value for comparison in found])
    return [comparison._replace(p_holm=float(p)) for comparison, p in zip(found, adjusted, strict=True)]


def _one_seed(run: Callable[[np.ndarray, np.ndarray], Difference]) -> Callable[[np.ndarray, np.ndarray], Difference]:
    """`run` on bool [N] each. Seeds pooled as if they were examples would make every difference significant."""

    def alone(first: np.ndarray, second: np.ndarray) -> Difference:
        if len(first) != 1 or len(second) != 1:
            counts = f"{len(first)} and {len(second)}"
            raise ComparisonError(f"this test needs one seed a side; got {counts}: the seeds test takes several")
        return run(first[0], second[0])

    return alone


def _hits(side: Side) -> np.ndarray:
    """bool [S, N]."""
    try:
        return metrics.outcomes(side.outcome, side.runs)
    except KeyError as error:
        raise ComparisonError(f"{side.name} has no column {error.args[0]!r}") from error
    except ValueError as error:
        raise ComparisonError(f"{side.name}: {error}") from error


def _refuse_others(first: Side, second: Side) -> None:
    a, b = first.runs[0], second.runs[0]
    who = f"{first.name} and {second.name} were measured on different examples"
    if not np.array_equal(a["index"], b["index"]):
        shared = len(np.intersect1d(a["index"], b["index"]))
        counts = f"{len(a['index'])} and {len(b['index'])} of them, {shared} in common, not in one order or not all"
        raise ComparisonError(f"{who}: {counts}; measure both on the same")
    if not np.array_equal(a["label"], b["label"]):
        raise ComparisonError(f"{who}: their labels differ, so the data did")
