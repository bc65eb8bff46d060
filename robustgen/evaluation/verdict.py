"""What a summary says in words: computed from the data, with the numbers, their intervals and their significance."""

from collections.abc import Sequence
from typing import NamedTuple

from robustgen.evaluation import metrics
from robustgen.evaluation.intervals import Difference, holm
from robustgen.evaluation.summary import LEVEL, Comparison, Row, Summary, compare, front, highest, p_text, percent


class Step(NamedTuple):
    """From one row to another: the differences in both accuracies with Holm-adjusted p-values."""

    start: Row
    end: Row
    clean: Difference
    robust: Difference


def verdict(summary: Summary) -> list[str]:
    """Sentences, the most important first: what robust training bought and cost, the trade-off along the Pareto front,
    and the bracket of the best certified row."""
    best, first, ends = highest(summary.rows, "robust"), summary.rows[0], front(summary.rows)
    pairs = [] if best is first else [(first, best)]
    if len(ends) > 1 and (ends[0], ends[-1]) not in pairs:
        pairs.append((ends[0], ends[-1]))
    said = [_step_words(step, summary) for step in _steps(pairs)]
    opening = said or [_alone(best, summary)]
    return [opening[0], *(f"Along the Pareto front: {words}" for words in opening[1:]), *_bracket(summary)]


def significance(summary: Summary) -> list[str]:
    """One line for each accuracy: which rows the best one differs from."""
    groups = [("clean", summary.clean), ("robust", summary.robust)]
    return [_compared(word, found) for word, found in groups if found]


def attacked_by(attacks: list[str]) -> str:
    """ "PGD-50x3", or "worst of PGD-50x3, Square"."""
    joined = ", ".join(attacks)
    return f"worst of {joined}" if len(attacks) > 1 else joined or "no attack"


def sizes(summary: Summary) -> str:
    """How many examples and seeds the numbers rest on."""
    seeds = sorted({len(row.runs) for row in summary.rows})
    spread = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"n = {summary.n} test examples, {spread} seed{'' if seeds == [1] else 's'}"


def _steps(pairs: Sequence[tuple[Row, Row]]) -> list[Step]:
    outcomes = (metrics.clean, metrics.robust)
    found = [compare(end, start, outcome) for start, end in pairs for outcome in outcomes]
    adjusted = [
        difference._replace(p=float(p)) for difference, p in zip(found, holm([d.p for d in found]), strict=True)
    ]
    return [Step(*pair, *adjusted[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)]


def _step_words(step: Step, summary: Summary) -> str:
    gain = step.robust.p < LEVEL and step.robust.estimate.value > 0
    cost = step.clean.p < LEVEL
    attacked = f"under {attacked_by(summary.attacks)}"
    if not gain:
        return (
            f"{step.end.label} is not measurably more robust than {step.start.label}: "
            f"{_points(step.robust)} robust {attacked}, {_points(step.clean)} clean."
        )
    gained = f"{_points(step.robust, signed=False)} of robust accuracy"
    words = f"{step.end.label} gains {gained} over {step.start.label} {attacked}"
    if not cost:
        return f"{words}, at no measurable cost in clean accuracy: {_points(step.clean)}."
    if step.clean.estimate.value > 0:
        return f"{words} and gains clean accuracy too: {_points(step.clean)}."
    return f"{words} and pays for it in clean accuracy: {_points(step.clean)}."


def _alone(row: Row, summary: Summary) -> str:
    attacked = attacked_by(summary.attacks)
    words = f"{row.label}: clean {_interval(row.clean)}, robust {_interval(row.robust)} under {attacked}"
    return f"{words}; no other row is more robust." if len(summary.rows) > 1 else f"{words}."


def _bracket(summary: Summary) -> list[str]:
    row = highest(summary.rows, "certified")
    if row.certified is None or row.certified.value == 0:
        return []
    return [
        f"{row.label} certifies the most: {_interval(row.certified)} proved by {', '.join(summary.certifiers)}, so its "
        f"true robust accuracy lies between that and the {_interval(row.robust)} that no attack broke."
    ]


def _points(difference: Difference, signed: bool = True) -> str:
    value, lower, upper = (percent(part, signed) for part in difference.estimate[:3])
    return f"{value} points [{lower}, {upper}; {p_text(difference.p)}]"


def _interval(mean: metrics.OverSeeds) -> str:
    e = mean.examples
    return f"{percent(e.value)} % [{percent(e.lower)}, {percent(e.upper)}]"


def _compared(word: str, found: Sequence[Comparison]) -> str:
    groups = {True: [], False: []}
    for comparison in found:
        groups[comparison.significant].append(f"{comparison.other} ({p_text(comparison.p)})")
    parts = []
    if groups[True]:
        parts.append(f"better than {', '.join(groups[True])}")
    if groups[False]:
        parts.append(f"not significantly different from {', '.join(groups[False])}")
    return f"{word}: {found[0].best} is highest; {'; '.join(parts)}"
