"""The figures of a report as SVG text: the same data give the same bytes, and light and dark pages share one file.

Text and axes are drawn in `INK`, which `inline` turns into `currentColor`. Series differ in marker or dash as well as in
a colour that stays apart for colour-blind readers and keeps 3:1 contrast on white and on black.
"""

import io
import itertools
import re
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np

from robustgen.evaluation.curves import Curve
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import Row, Summary, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#24292f"
COLORS = ("#2a7ab9", "#d55e00", "#0a8f6c", "#b0599a", "#8a6d1c", "#6b7280")
MARKERS = "oD^svP"
MOST_PANELS = 12
MOST_POINTS = 300


def tradeoff(summary: Summary) -> "Figure":
    """Clean against robust accuracy [%] of every row: Wilson error bars, the Pareto front, and a closer look at it."""
    rows = summary.rows
    best = front(rows)
    near = _near(rows, best)
    panels = 2 if len(near) > 1 and len(near) < len(rows) else 1
    figure, axes = _axes(1, panels, (4.6 * panels, 3.9))
    for ax, shown in zip(axes, (rows, near), strict=False):
        _scatter(ax, shown, {method: i for i, method in enumerate(dict.fromkeys(row.method for row in rows))})
        line = [row for row in best if row in shown]
        ax.plot(_percent(line, "clean"), _percent(line, "robust"), color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.set(xlabel="clean accuracy (%)", ylabel="robust accuracy (%)")
        ax.margins(0.14)
    if panels == 2:
        axes[0].set_title("every row")
        axes[1].set_title("around the Pareto front")
    _legend(figure, axes[0])
    for ax, shown in zip(axes, (rows, near), strict=False):
        _label(figure, ax, shown)
    return figure


def training(rows: Sequence[Row]) -> "Figure | None":
    """One panel a row: clean and robust accuracy [%] over epochs, training dashed, validation solid, means over seeds."""
    rows = [row for row in rows if any(run.history for run in row.runs)][:MOST_PANELS]
    if not rows:
        return None
    figure, axes = _panels(len(rows))
    for ax, row in zip(axes, rows, strict=True):
        runs = [run for run in row.runs if run.history]
        for (color, what), (dash, split) in itertools.product(_KINDS, _SPLITS):
            if all(f"{split}_{what}" in run.history for run in runs):
                _series(ax, runs, f"{split}_{what}", color, dash, f"{what}, {split}")
        ax.set(title=row.label, ylim=(-3, 103))
    _shared_labels(figure, axes, "epoch", "accuracy (%)")
    _legend(figure, axes[0])
    return figure


def radius(rows: Sequence[Row], eps: float | None) -> "Figure | None":
    """One panel a row: the share [%] that no attack broke, and the share certified, against the radius; between them,
    shaded, is where the truth lies. `eps` marks the radius of the tables."""
    rows = [row for row in rows if curves(row)][:MOST_PANELS]
    if not rows:
        return None
    figure, axes = _panels(len(rows))
    for ax, row in zip(axes, rows, strict=True):
        found = curves(row)
        grid, robust = found[0].eps, _mean(found, lambda curve: curve.robust)
        ax.plot(grid, robust, color=COLORS[1], label="not broken by the attack", lw=1.8)
        if all(curve.certified is not None for curve in found):
            proved = _mean(found, lambda curve: curve.certified)
            ax.plot(grid, proved, color=COLORS[0], label="certified", lw=1.8, ls=(0, (5, 1.5)))
            ax.fill_between(grid, proved, robust, color=COLORS[1], alpha=0.16, lw=0, label="undecided")
        if eps is not None:
            ax.axvline(eps, color=INK, lw=0.8, ls=":", label=f"ε = {eps:g} of the tables")
        ax.set(title=row.label, ylim=(-3, 103), xlim=(grid[0], grid[-1]))
    _shared_labels(figure, axes, "radius ε of the threat set", "accuracy (%)")
    _legend(figure, axes[0])
    return figure


def gaps(rows: Sequence[Row]) -> "Figure | None":
    """Train minus test accuracy in points, clean and robust, with their intervals, one line a row."""
    rows = [row for row in rows if row.clean_gap is not None]
    if not rows:
        return None
    figure, (ax,) = _axes(1, 1, (6.4, 0.9 + 0.42 * len(rows)))
    height = np.arange(len(rows))[::-1]
    for shift, marker, color, name in ((0.13, "o", COLORS[0], "clean"), (-0.13, "D", COLORS[1], "robust")):
        found = [getattr(row, f"{name}_gap").examples for row in rows]
        value, lower, upper = (100 * np.array([e[i] for e in found]) for i in range(3))
        ax.errorbar(
            value, height + shift, xerr=[value - lower, upper - value], fmt=marker, color=color, ms=5, lw=1.3, label=name
        )
    ax.axvline(0, color=INK, lw=0.8)
    ax.set(yticks=height, yticklabels=[row.label for row in rows], xlabel="train minus test accuracy (points)")
    ax.grid(axis="y", visible=False)
    _legend(figure, ax)
    return figure


def svg(figure: "Figure", name: str) -> str:
    """The figure as one SVG document, without date; `name` salts its ids."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"\s*<metadata>.*?</metadata>", "", out.getvalue(), flags=re.S)


def inline(document: str, name: str, description: str) -> str:
    """The SVG document as an element of a page: ids made unique by `name`, ink in the colour of the text around it."""
    body = document[document.index("<svg") :]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body.replace("xlink:href", "href"))
    body = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", body).replace(INK, "currentColor")
    body = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="([\d.]+)pt"', r'<svg \1\2style="max-width:\3pt"', body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1).strip()


def curves(row: Row) -> list[Curve]:
    """The curves that the runs of `row` have."""
    return [run.curve for run in row.runs if run.curve is not None]


_KINDS = ((COLORS[0], "clean"), (COLORS[1], "robust"))
_SPLITS = (((0, (3, 1.5)), "train"), ("-", "validation"))
_STYLE = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.7, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12, "grid.linewidth": 0.7,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def _axes(down: int, across: int, size: tuple[float, float], **shared) -> "tuple[Figure, list[Axes]]":
    """A figure outside pyplot's global state, and its axes row by row."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(size)
        return figure, list(figure.subplots(down, across, squeeze=False, **shared).flat)


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    across = min(count, 3)
    down = -(-count // across)
    figure, axes = _axes(down, across, (3.05 * across + 0.3, 2.15 * down + 0.6), sharex=True, sharey=True)
    for ax in axes[count:]:
        ax.set_visible(False)
    for ax in axes[max(0, count - across) : count]:
        ax.tick_params(labelbottom=True)
    return figure, axes[:count]


def _shared_labels(figure: "Figure", axes: "list[Axes]", x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)


def _legend(figure: "Figure", ax: "Axes") -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4), frameon=False, labelcolor=INK)


def _percent(rows: Sequence[Row], outcome: str) -> list[float]:
    return [100 * getattr(row, outcome).value for row in rows]


def _near(rows: Sequence[Row], best: Sequence[Row]) -> list[Row]:
    """The rows in the front's own range, widened by a quarter of the whole; all, where that is most of the picture."""
    points = np.array([(row.clean.value, row.robust.value) for row in rows])
    ends = np.array([(row.clean.value, row.robust.value) for row in best])
    margin = 0.15 * np.ptp(points, 0)
    inside = ((points >= ends.min(0) - margin) & (points <= ends.max(0) + margin)).all(1)
    crowded = (np.ptp(points[inside], 0) < 0.4 * np.ptp(points, 0) + 1e-9).any()
    return [row for row, keep in zip(rows, inside, strict=True) if keep] if crowded else list(rows)


def _scatter(ax: "Axes", rows: Sequence[Row], order: dict[str, int]) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        own, i = [row for row in rows if row.method == method], order[method]
        for row in own:
            clean, robust = row.clean.examples, row.robust.examples
            ax.errorbar(
                100 * clean.value, 100 * robust.value, xerr=_bars(clean), yerr=_bars(robust), color=COLORS[i % 6],
                fmt="none", lw=1, alpha=0.45,
            )  # fmt: skip
        ax.plot(
            _percent(own, "clean"), _percent(own, "robust"), MARKERS[i % 6], color=COLORS[i % 6], ms=7, label=method,
            mec="white", mew=0.6, zorder=3,
        )  # fmt: skip


def _bars(e) -> np.ndarray:
    return 100 * np.array([[e.value - e.lower], [e.upper - e.value]])


def _label(figure: "Figure", ax: "Axes", rows: Sequence[Row]) -> None:
    """Names the points, each where it covers least of the points and names so far, with a thin line back to its point."""
    figure.draw_without_rendering()
    points = ax.transData.transform(np.column_stack([_percent(rows, "clean"), _percent(rows, "robust")]))
    taken = [(*(point - 7), *(point + 7)) for point in points]
    frame = ax.get_window_extent()
    for row, point in zip(rows, points, strict=True):
        text = row.point or row.method
        width, height = 6.2 * len(text) * figure.dpi / 72, 12 * figure.dpi / 72

        def cost(offset, point=point, width=width, height=height) -> float:
            box = _box(point + offset, offset, width, height)
            outside = max(frame.x0 - box[0], box[2] - frame.x1, frame.y0 - box[1], box[3] - frame.y1, 0)
            return sum(_overlap(box, other) for other in taken) + 50 * outside + 2 * float(np.hypot(*offset))

        offset = min(_OFFSETS, key=cost)
        taken.append(_box(point + offset, offset, width, height))
        ax.annotate(
            text, point, point + offset, xycoords="figure pixels", textcoords="figure pixels", fontsize=9, color=INK,
            ha="left" if offset[0] > 0 else "right", va="center",
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.6, "shrinkA": 1, "shrinkB": 4},
        )  # fmt: skip


_OFFSETS = [
    length * np.array([np.cos(angle), np.sin(angle)])
    for length in (14, 22, 34, 48, 66)
    for angle in np.deg2rad((20, -20, 160, 200, 50, -50, 130, 230, 75, -75, 105, 255))
]


def _box(at: np.ndarray, offset: np.ndarray, width: float, height: float) -> tuple[float, float, float, float]:
    left = at[0] if offset[0] > 0 else at[0] - width
    return left, at[1] - height / 2, left + width, at[1] + height / 2


def _overlap(a: tuple, b: tuple) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _series(ax: "Axes", runs: Sequence[Run], key: str, color: str, dash, label: str) -> None:
    values = [np.asarray(run.history[key], float) for run in runs]
    length = min(map(len, values))
    thin = slice(None, length, max(1, length // MOST_POINTS))
    epochs = np.asarray(runs[0].history.get("epoch", np.arange(length)))[thin]
    mean = 100 * np.mean([value[:length] for value in values], 0)[thin]
    ax.plot(epochs, mean, color=color, ls=dash, lw=1.6 if dash == "-" else 1.1, label=label)


def _mean(found: Sequence[Curve], share: Callable[[Curve], np.ndarray]) -> np.ndarray:
    return 100 * np.mean([share(curve) for curve in found], axis=(0, 2))
