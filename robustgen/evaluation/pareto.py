"""The natural-against-certified trade-off of several methods in one figure, a curve a method."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robustgen.core import Estimate
from robustgen.evaluation.draw import COLORS, INK, MARKERS, grid, label, legend, styled
from robustgen.evaluation.summary import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def certified_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in clean and certified accuracy both, by falling clean accuracy."""
    points = _points(rows)
    beaten = [bool(np.any((points >= point).all(1) & (points > point).any(1))) for point in points]
    best = [row for row, worse in zip(rows, beaten, strict=True) if not worse]
    return sorted(best, key=lambda row: -row.clean.value)


@styled
def pareto(rows: Sequence[Row]) -> "Figure":
    """Clean against certified accuracy [%]: means over seeds with 95 % Wilson bars, the settings of a method joined in
    the order they come, the first and last named; the dashed line joins the Pareto-best of all. Every row must have
    been certified."""
    figure, (ax,) = grid(1, 1, (7.2, 4.8))
    for i, method in enumerate(dict.fromkeys(row.method for row in rows)):
        own = [row for row in rows if row.method == method]
        style = {"color": COLORS[i % len(COLORS)], "zorder": 3}
        for (x, y), row in zip(_points(own), own, strict=True):
            bars = {"xerr": _bars(row.clean.examples), "yerr": _bars(row.certified.examples)}
            ax.errorbar(x, y, **bars, fmt="none", lw=0.8, alpha=0.3, **style)
        ax.plot(*_points(own).T, MARKERS[i % len(MARKERS)] + "-", ms=6, lw=1.2, label=method, **style)
    ax.plot(*_points(certified_front(rows)).T, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.set(xlabel="clean accuracy (%)", ylabel="certified accuracy (%)")
    ax.margins(0.08)
    legend(figure, ax)
    ends = [row for row in rows if row.point and row in _ends(rows)]
    label(figure, ax, [row.point for row in ends], _points(ends), _points(rows))
    return figure


def _ends(rows: Sequence[Row]) -> list[Row]:
    methods = {row.method: [r for r in rows if r.method == row.method] for row in rows}
    return [row for own in methods.values() for row in (own[0], own[-1])]


def _points(rows: Sequence[Row]) -> np.ndarray:
    """(clean, certified) in percent, [len(rows), 2]."""
    return 100 * np.array([(row.clean.value, row.certified.value) for row in rows]).reshape(-1, 2)


def _bars(e: Estimate) -> np.ndarray:
    return 100 * np.array([[e.value - e.lower], [e.upper - e.value]])
