"""The figures of a report, as matplotlib figures outside pyplot's global state; `draw.svg` writes them."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from robustgen.core import Estimate
from robustgen.evaluation.curves import Curve
from robustgen.evaluation.draw import COLORS, INK, MARKERS, grid, label, legend, panels, shared_labels, styled
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import Row, Summary, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
MOST_POINTS = 300


@styled
def tradeoff(summary: Summary) -> "Figure":
    """Clean against robust accuracy [%] of every row: Wilson error bars, the Pareto front, and a closer look at it."""
    rows, best = summary.rows, front(summary.rows)
    near = _near(rows, best)
    shown = [rows, near] if 1 < len(near) < len(rows) else [rows]
    figure, axes = grid(1, len(shown), (4.6 * len(shown), 3.9))
    order = {method: i for i, method in enumerate(dict.fromkeys(row.method for row in rows))}
    for ax, part in zip(axes, shown, strict=True):
        _scatter(ax, part, order)
        ax.plot(*_points([row for row in best if row in part]).T, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.set(xlabel="clean accuracy (%)", ylabel="robust accuracy (%)")
        ax.margins(0.12)
    if len(shown) == 2:
        (left, right), (bottom, top) = axes[1].get_xlim(), axes[1].get_ylim()
        axes[0].plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color=INK, lw=0.7, alpha=0.5)
        axes[0].set_title("all rows")
        axes[1].set_title("the box, enlarged")
    legend(figure, axes[0])
    for ax, part in zip(axes, shown, strict=True):
        named = part if part is shown[-1] else [row for row in part if row not in near]
        label(figure, ax, [row.point or row.method for row in named], _points(named), _points(part))
    return figure


@styled
def training(rows: Sequence[Row]) -> "Figure | None":
    """One panel a row: clean and robust accuracy [%] over epochs, train dashed, validation solid, means over seeds."""
    rows = [row for row in rows if any(run.history for run in row.runs)][:MOST_PANELS]
    if not rows:
        return None
    figure, axes = panels(len(rows))
    for ax, row in zip(axes, rows, strict=True):
        runs = [run for run in row.runs if run.history]
        for (color, what), (dash, split) in itertools.product(_KINDS, _SPLITS):
            if all(f"{split}_{what}" in run.history for run in runs):
                _series(ax, runs, f"{split}_{what}", color, dash, f"{what}, {split}")
        ax.set(title=row.label, ylim=(-3, 103))
    shared_labels(figure, axes, "epoch", "accuracy (%)")
    legend(figure, axes[0])
    return figure


@styled
def radius(rows: Sequence[Row], eps: float | None) -> "Figure | None":
    """One panel a row: the share [%] that no attack broke, and the share certified, against the radius; between them,
    shaded, is where the truth lies. `eps` marks the radius of the tables."""
    rows = [row for row in rows if curves(row)][:MOST_PANELS]
    if not rows:
        return None
    figure, axes = panels(len(rows))
    for ax, row in zip(axes, rows, strict=True):
        found = curves(row)
        radii, robust = found[0].eps, _mean(found, lambda curve: curve.robust)
        ax.plot(radii, robust, color=COLORS[1], label="not broken by the attack", lw=1.8)
        if all(curve.certified is not None for curve in found):
            proved = _mean(found, lambda curve: curve.certified)
            ax.plot(radii, proved, color=COLORS[0], label="certified", lw=1.8, ls=(0, (5, 1.5)))
            ax.fill_between(radii, proved, robust, color=COLORS[1], alpha=0.16, lw=0, label="undecided")
        if eps is not None:
            ax.axvline(eps, color=INK, lw=0.8, ls=":", label=f"ε = {eps:g} of the tables")
        ax.set(title=row.label, ylim=(-3, 103), xlim=(radii[0], radii[-1]))
    shared_labels(figure, axes, "radius ε of the threat set", "accuracy (%)")
    legend(figure, axes[0])
    return figure


@styled
def gaps(rows: Sequence[Row]) -> "Figure | None":
    """Train minus test accuracy in points, clean and robust, with their intervals, one line a row."""
    rows = [row for row in rows if row.clean_gap is not None]
    if not rows:
        return None
    figure, (ax,) = grid(1, 1, (6.4, 1.2 + 0.42 * len(rows)))
    height = np.arange(len(rows))[::-1]
    for shift, marker, color, name in ((0.13, "o", COLORS[0], "clean"), (-0.13, "D", COLORS[1], "robust")):
        found = [getattr(row, f"{name}_gap").examples for row in rows]
        value, lower, upper = (100 * np.array([e[i] for e in found]) for i in range(3))
        bars = [value - lower, upper - value]
        ax.errorbar(value, height + shift, xerr=bars, fmt=marker, color=color, ms=5, lw=1.3, label=name)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set(yticks=height, yticklabels=[row.label for row in rows], xlabel="train minus test accuracy (points)")
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.grid(axis="y", visible=False)
    legend(figure, ax)
    return figure


def curves(row: Row) -> list[Curve]:
    """The curves that the runs of `row` have."""
    return [run.curve for run in row.runs if run.curve is not None]


_KINDS = ((COLORS[0], "clean"), (COLORS[1], "robust"))
_SPLITS = (((0, (3, 1.5)), "train"), ("-", "validation"))
def _points(rows: Sequence[Row]) -> np.ndarray:
    """(clean, robust) in percent, [len(rows), 2]."""
    return 100 * np.array([(row.clean.value, row.robust.value) for row in rows]).reshape(-1, 2)


def _near(rows: Sequence[Row], best: Sequence[Row]) -> list[Row]:
    """The rows in the front's own range and a bit around; all, where those are spread over most of the picture."""
    points, ends = _points(rows), _points(best)
    whole = np.ptp(points, 0)
    inside = ((points >= ends.min(0) - 0.25 * whole) & (points <= ends.max(0) + 0.25 * whole)).all(1)
    crowded = (np.ptp(points[inside], 0) < 0.35 * whole).any()
    return [row for row, keep in zip(rows, inside, strict=True) if keep] if crowded else list(rows)


def _scatter(ax: "Axes", rows: Sequence[Row], order: dict[str, int]) -> None:
    for method, i in order.items():
        own = [row for row in rows if row.method == method]
        style = {"color": COLORS[i % len(COLORS)], "zorder": 3}
        for row in own:
            clean, robust = row.clean.examples, row.robust.examples
            bars = {"xerr": _bars(clean), "yerr": _bars(robust), "fmt": "none", "lw": 1, "alpha": 0.45}
            ax.errorbar(100 * clean.value, 100 * robust.value, **bars, **style)
        ax.plot(*_points(own).T, MARKERS[i % len(MARKERS)], ms=7, label=method, **style)


def _bars(e: Estimate) -> np.ndarray:
    return 100 * np.array([[e.value - e.lower], [e.upper - e.value]])


def _series(ax: "Axes", runs: Sequence[Run], key: str, color: str, dash, label: str) -> None:
    values = [np.asarray(run.history[key], float) for run in runs]
    length = min(map(len, values))
    thin = slice(None, length, max(1, length // MOST_POINTS))
    epochs = np.asarray(runs[0].history.get("epoch", np.arange(length)))[thin]
    mean = 100 * np.mean([value[:length] for value in values], 0)[thin]
    ax.plot(epochs, mean, color=color, ls=dash, lw=1.6 if dash == "-" else 1.1, label=label)


def _mean(found: Sequence[Curve], share: Callable[[Curve], np.ndarray]) -> np.ndarray:
    return 100 * np.mean([share(curve) for curve in found], axis=(0, 2))
