"""Runs to rows: means over seeds with both intervals, the Pareto front, what differs significantly, and a verdict."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustgen.evaluation import metrics
from robustgen.evaluation.columns import contradictions, names
from robustgen.evaluation.intervals import Difference, holm, paired_difference
from robustgen.evaluation.metrics import Outcome, OverSeeds
from robustgen.evaluation.results import Run

LEVEL = 0.05
SYMBOLS = {
    "alpha": "α", "beta": "β", "eps": "ε", "gamma": "γ", "kappa": "κ", "lambda": "λ", "sigma": "σ", "rho": "ρ",
    "tau": "τ",
}  # fmt: skip


class Row(NamedTuple):
    """One method at one setting, over its seeds. `label` names it; `point` is the part of the label after the method.

    Gaps are train minus test. `best_clean`, `best_robust`: highest, or not significantly below the highest.
    """

    label: str
    method: str
    point: str
    runs: list[Run]
    clean: OverSeeds
    robust: OverSeeds
    certified: OverSeeds | None
    clean_gap: OverSeeds | None
    robust_gap: OverSeeds | None
    pareto: bool = False
    best_clean: bool = False
    best_robust: bool = False


class Comparison(NamedTuple):
    """The best row against another on one outcome; `p` is Holm-adjusted over the comparisons of that outcome."""

    best: str
    other: str
    difference: Difference
    p: float

    @property
    def significant(self) -> bool:
        return self.p < LEVEL


class Summary(NamedTuple):
    """Everything a table says. `attacks` and `certifiers` are the names in the columns, `gap_attacks` those that
    training examples were attacked by too; `failed` the runs without columns."""

    rows: list[Row]
    clean: list[Comparison]
    robust: list[Comparison]
    attacks: list[str]
    certifiers: list[str]
    n: int
    n_train: int | None
    failed: list[Run]
    gap_attacks: list[str]


def summarize(runs: Sequence[Run]) -> Summary:
    """Groups runs by method and knobs, in the order they come.

    Raises `ContradictionError` where an example is certified and broken, and ValueError where there is nothing to
    compare, or runs were attacked differently or on different examples.
    """
    done = [run for run in runs if run.columns is not None]
    if not done:
        raise ValueError("no run has columns: nothing to summarize")
    for run in done:
        contradictions(run.columns)
    attacks = names(done[0].columns, "robust")
    if any(names(run.columns, "robust") != attacks for run in done):
        raise ValueError("runs were attacked differently: compare like with like")
    metrics.outcomes(metrics.clean, [run.columns for run in done])
    rows = _mark([_row(group, done) for group in _groups(done)])
    comparisons = [_against_best(rows, outcome) for outcome in (metrics.clean, metrics.robust)]
    return Summary(
        _embolden(rows, *comparisons), *comparisons, attacks,
        list(dict.fromkeys(name for run in done for name in names(run.columns, "certified"))),
        len(done[0].columns["index"]),
        next((len(run.train_columns["index"]) for run in done if run.train_columns is not None), None),
        [run for run in runs if run.columns is None],
        [name for name in attacks if all(f"robust:{name}" in (run.train_columns or {}) for run in done)],
    )  # fmt: skip


def compare(first: Row, second: Row, outcome: Outcome) -> Difference:
    """first - second, paired over examples, with the spread of the seeds (see `paired_difference`)."""
    hits = [metrics.outcomes(outcome, [run.columns for run in row.runs]) for row in (first, second)]
    return paired_difference(*hits)


def highest(rows: Sequence[Row], outcome: str) -> Row:
    """The row with the highest mean `clean`, `robust` or `certified`."""
    return max(rows, key=lambda row: getattr(row, outcome).value if getattr(row, outcome) else -1.0)


def front(rows: Sequence[Row]) -> list[Row]:
    """The Pareto-best rows, by falling clean accuracy."""
    return sorted((row for row in rows if row.pareto), key=lambda row: -row.clean.value)


def percent(value: float, signed: bool = False) -> str:
    """One decimal; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:{'+' if signed else ''}.1f}".replace("-", "−")


def p_text(p: float) -> str:
    """ "p = 0.04", with "p < 0.001" below that."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, tuple(sorted(run.knobs.items()))), []).append(run)
    return list(groups.values())


def _row(runs: list[Run], everything: Sequence[Run]) -> Row:
    method, point = runs[0].method, _point(runs[0], everything)
    test, train = [run.columns for run in runs], [run.train_columns for run in runs]
    gaps = [None, None]
    if None not in train:
        gaps = [metrics.gap_over_seeds(outcome, train, test) for outcome in (metrics.clean, metrics.robust)]
    proved = all(names(columns, "certified") for columns in test)
    return Row(
        f"{method} {point}".strip(), method, point, runs,
        metrics.over_seeds(metrics.clean, test), metrics.over_seeds(metrics.robust, test),
        metrics.over_seeds(metrics.certified, test) if proved else None, *gaps,
    )  # fmt: skip


def _point(run: Run, everything: Sequence[Run]) -> str:
    """The knobs in which runs of this method differ, as "β=3"."""
    same = [other.knobs for other in everything if other.method == run.method]
    varying = [name for name in run.knobs if len({knobs.get(name) for knobs in same}) > 1]
    short = {name: name.removesuffix(".end").rpartition(".")[2] for name in varying}  # "loss.beta" is beta
    return ", ".join(f"{SYMBOLS.get(short[name], short[name])}={run.knobs[name]:g}" for name in varying)


def _mark(rows: list[Row]) -> list[Row]:
    points = np.array([(row.clean.value, row.robust.value) for row in rows])
    beaten = [bool(np.any((points >= point).all(1) & (points > point).any(1))) for point in points]
    return [row._replace(pareto=not worse) for row, worse in zip(rows, beaten, strict=True)]


def _against_best(rows: Sequence[Row], outcome: Outcome) -> list[Comparison]:
    best = highest(rows, outcome.__name__)
    others = [row for row in rows if row is not best]
    found = [compare(best, other, outcome) for other in others]
    adjusted = holm([difference.p for difference in found])
    return [Comparison(best.label, o.label, d, float(p)) for o, d, p in zip(others, found, adjusted, strict=True)]


def _embolden(rows: list[Row], clean: list[Comparison], robust: list[Comparison]) -> list[Row]:
    worse = [{c.other for c in comparisons if c.significant} for comparisons in (clean, robust)]
    return [row._replace(best_clean=row.label not in worse[0], best_robust=row.label not in worse[1]) for row in rows]
