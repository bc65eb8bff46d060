"""Comparisons as tables, for `tables.console_table` and `tables.markdown_table` to write, and as CSV for machines."""

import csv
import io
from collections.abc import Sequence

from robustgen.core import Estimate
from robustgen.evaluation import metrics
from robustgen.evaluation.comparison import Comparison, Side
from robustgen.evaluation.summary import p_text, percent
from robustgen.evaluation.tables import Cell, Table


def accuracy_table(sides: Sequence[Side], title: str) -> Table:
    """Each side's accuracy with its intervals; `tables.console_table` and `tables.markdown_table` write it."""
    rows = []
    for side in sides:
        mean = metrics.over_seeds(side.outcome, side.runs)
        e, half = mean.examples, mean.seeds.upper - mean.value
        spread = f"±{percent(half)}" if mean.seeds.n > 1 else ""
        interval = f"[{percent(e.lower)}, {percent(e.upper)}]"
        sizes = Cell(str(len(side.runs))), Cell(str(e.n))
        rows.append([Cell(side.name), Cell(percent(e.value), interval, spread), *sizes])
    note = "[ ] Wilson 95 % over n examples, of the mean over seeds; ± Student's 95 % over seeds"
    return Table(title, ["", "%", "seeds", "n"], rows, [note])


def comparison_table(comparisons: Sequence[Comparison], title: str) -> Table:
    """One row a pair: the difference in points with its interval, the examples that one alone is right on, p-values."""
    head = ["first", "second", "first − second, points", "only first", "only second", "p", "p (Holm)", "n"]
    rows = [
        [
            Cell(c.first), Cell(c.second), _difference(c.difference), *map(_count, (c.only_first, c.only_second)),
            *map(_p, (c.p_value, c.p_holm)), Cell(str(c.n)),
        ]
        for c in comparisons
    ]  # fmt: skip
    tests = ", ".join(dict.fromkeys(c.test for c in comparisons))
    pairs = f"{len(rows)} pairs" if len(rows) > 1 else "one pair"
    return Table(title, head, rows, [f"p: {tests}, two-sided; Holm: adjusted over the {pairs} of this table alone"])


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a pair, every number in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow("first second difference lower upper only_first only_second p p_holm n test".split())
    for c in comparisons:
        numbers = (*c.difference[:3], c.only_first, c.only_second, c.p_value, c.p_holm)
        writer.writerow([c.first, c.second, *("" if v is None else f"{v:.9g}" for v in numbers), c.n, c.test])
    return out.getvalue()


def _difference(e: Estimate) -> Cell:
    return Cell(percent(e.value, signed=True), f"[{percent(e.lower, signed=True)}, {percent(e.upper, signed=True)}]")


def _count(count: int | None) -> Cell:
    return Cell("–" if count is None else str(count))


def _p(p: float | None) -> Cell:
    return Cell("–" if p is None else p_text(p).removeprefix("p ").removeprefix("= "))
