"""Columns to numbers. An `Outcome` says which examples count, `accuracy` turns it into a `Metric`, and every number
is an `Estimate`: it has an interval and an n."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from robustgen.core import Estimate
from robustgen.evaluation.columns import Columns, names
from robustgen.evaluation.intervals import newcombe, t_interval, wilson

Outcome = Callable[[Columns], np.ndarray]
"""columns -> bool [N]"""

Metric = Callable[[Columns], Estimate]


def clean(columns: Columns) -> np.ndarray:
    """Right on the example itself."""
    return columns["clean"]


def robust(columns: Columns) -> np.ndarray:
    """Right under every attack there is a column of, and not falsified by a certifier: the worst case found."""
    held = [columns[f"robust:{name}"] for name in names(columns, "robust")]
    kept = [~columns[f"falsified:{name}"] for name in names(columns, "falsified")]
    return np.logical_and.reduce([columns["clean"], *held, *kept])


def certified(columns: Columns) -> np.ndarray:
    """Certified by at least one certifier there is a column of."""
    proved = [columns[f"certified:{name}"] for name in names(columns, "certified")]
    return np.logical_or.reduce([np.zeros_like(columns["clean"]), *proved])


def robust_to(attack: str) -> Outcome:
    """Right under the attack of that name."""
    return lambda columns: columns[f"robust:{attack}"]


def certified_by(certifier: str) -> Outcome:
    """Certified by the certifier of that name."""
    return lambda columns: columns[f"certified:{certifier}"]


def accuracy(outcome: Outcome) -> Metric:
    """The share of examples with `outcome`, with its Wilson interval."""
    return lambda columns: wilson(int(outcome(columns).sum()), len(columns["index"]))


def gap(train_columns: Columns, test_columns: Columns, outcome: Outcome) -> Estimate:
    """Train minus test accuracy: the generalization gap of `clean`, the robust generalization gap of `robust`."""
    return newcombe(accuracy(outcome)(train_columns), accuracy(outcome)(test_columns))


class OverSeeds(NamedTuple):
    """A mean over seeds. `examples` has the interval over examples (n examples), `seeds` the one over seeds."""

    examples: Estimate
    seeds: Estimate

    @property
    def value(self) -> float:
        return self.examples.value


def over_seeds(outcome: Outcome, runs: Sequence[Columns]) -> OverSeeds:
    """Mean accuracy over `runs`, one a seed, all on the same examples: Wilson at n on the mean, and t over seeds."""
    hits = outcomes(outcome, runs)
    mean = hits.mean(1)
    return OverSeeds(wilson(float(hits.mean() * hits.shape[1]), hits.shape[1]), t_interval(mean))


def gap_over_seeds(outcome: Outcome, train: Sequence[Columns], test: Sequence[Columns]) -> OverSeeds:
    """Mean of train minus test accuracy over seeds, with both intervals, under the attacks that both splits had."""
    test = [_without(set(names(b, "robust")) - set(names(a, "robust")), b) for a, b in zip(train, test, strict=True)]
    examples = newcombe(over_seeds(outcome, train).examples, over_seeds(outcome, test).examples)
    gaps = outcomes(outcome, train).mean(1) - outcomes(outcome, test).mean(1)
    return OverSeeds(examples, t_interval(gaps))


def _without(attacks: set[str], columns: Columns) -> Columns:
    return {name: column for name, column in columns.items() if name.rpartition(":")[2] not in attacks}


def outcomes(outcome: Outcome, runs: Sequence[Columns]) -> np.ndarray:
    """bool [S, N] over runs. Raises ValueError unless all saw the same examples."""
    if any(not np.array_equal(run["index"], runs[0]["index"]) for run in runs):
        raise ValueError("runs were evaluated on different examples: compare like with like")
    return np.stack([outcome(run) for run in runs])


def calibration_error(columns: Columns, *, suffix: str = "", num_bins: int = 15) -> Estimate:
    """Expected calibration error (Guo et al. 2017, eq. 3): mean |accuracy - confidence| over equal-width bins.

    `suffix` "" for clean, ":NAME" for under that attack. The interval is the value +- 1.96 bootstrap standard errors
    (200 fixed resamples), within [0, 1]; the estimate itself is biased upward, the more so the fewer the examples.
    """
    confidence = np.asarray(columns[f"confidence{suffix}"], np.float64)
    right = columns[f"prediction{suffix}"] == columns["label"]
    n, bins = len(right), np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    difference = right - confidence

    def error(rows) -> float:
        return float(np.abs(np.bincount(bins[rows], difference[rows], num_bins)).sum() / n)

    value, draw = error(slice(None)), np.random.default_rng(0)
    half = 1.96 * np.std([error(draw.integers(0, n, n)) for _ in range(200)], ddof=1)
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), n)
