"""Drawing that the figures share: style, panels, labels that do not cover each other, SVG that is equal for equal data.

Text and axes are drawn in `INK`, which `inline` turns into `currentColor`, so that light and dark pages share a figure.
Series differ in marker or dash as well as in a colour, each of which stays apart for colour-blind readers and has 3:1
contrast on white and on black.
"""

import contextlib
import functools
import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#24292f"
COLORS = ("#2a7ab9", "#d55e00", "#0a8f6c", "#b0599a", "#8a6d1c", "#6b7280")
MARKERS = "oD^svP"


F = TypeVar("F", bound=Callable)


def styled(plot: F) -> F:
    """Draws `plot` in the style of all figures, whatever the user's matplotlib is set to; leaves that as it was."""

    @functools.wraps(plot)
    def wrapped(*args, **kwargs):
        with _style():
            return plot(*args, **kwargs)

    return wrapped


def svg(figure: "Figure", name: str) -> str:
    """The figure as one SVG document, without date; `name` salts its ids."""
    out = io.StringIO()
    with _style(**{"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"\s*<metadata>.*?</metadata>", "", out.getvalue(), flags=re.S)


def inline(document: str, name: str, description: str) -> str:
    """The SVG document as an element of a page: ids made unique by `name`, ink in the colour of the text around it."""
    body = document[document.index("<svg") :]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body.replace("xlink:href", "href"))
    body = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", body).replace(INK, "currentColor")
    body = re.sub(r'width="([\d.]+)pt" height="[\d.]+pt"', r'style="max-width:\1pt"', body, count=1)
    body = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)  # it would style the whole page
    return body.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1).strip()


def grid(down: int, across: int, size: tuple[float, float], **shared) -> "tuple[Figure, list[Axes]]":
    """A figure outside pyplot's global state, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(size)
    figure.get_layout_engine().set(w_pad=0.09)
    return figure, list(figure.subplots(down, across, squeeze=False, **shared).flat)


def panels(count: int) -> "tuple[Figure, list[Axes]]":
    """`count` small panels, three a line, with common axes."""
    across = min(count, 3)
    down = -(-count // across)
    figure, axes = grid(down, across, (3.05 * across + 0.3, 2.15 * down + 0.6), sharex=True, sharey=True)
    for ax in axes[count:]:
        ax.set_visible(False)
    for ax in axes[max(0, count - across) : count]:
        ax.tick_params(labelbottom=True)
    return figure, axes[:count]


def shared_labels(figure: "Figure", axes: "list[Axes]", x: str, y: str) -> None:
    """One label for all panels on each side."""
    figure.supxlabel(x, fontsize=10, color=INK)
    figure.supylabel(y, fontsize=10, color=INK)


def legend(figure: "Figure", ax: "Axes") -> None:
    """What is drawn in `ax`, named above the figure."""
    handles, labels = ax.get_legend_handles_labels()
    inches = 0.6 + 0.085 * max(map(len, labels))
    columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, labelcolor=INK)


def label(figure: "Figure", ax: "Axes", texts: Sequence[str], at: np.ndarray, avoid: np.ndarray) -> None:
    """Names the points `at` [M, 2], each where it covers least of the points `avoid` and the names so far, with a thin
    line back to its point."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken = [(*(point - 7), *(point + 7)) for point in ax.transData.transform(avoid) / scale]
    frame = ax.get_window_extent().extents / scale
    for text, point, home in zip(texts, at, ax.transData.transform(at) / scale, strict=True):
        size = np.array([6.0 * len(text), 12.0])
        offset = min(_OFFSETS, key=functools.partial(_cost, home=home, size=size, taken=taken, frame=frame))
        taken.append(_box(home, offset, size))
        ax.annotate(
            text, point, offset, textcoords="offset points", fontsize=9, color=INK,
            ha="left" if offset[0] > 0 else "right", va="center",
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.6, "shrinkA": 1, "shrinkB": 4},
        )  # fmt: skip


def _cost(offset: np.ndarray, home: np.ndarray, size: np.ndarray, taken: list, frame: np.ndarray) -> float:
    box = _box(home, offset, size)
    outside = max(frame[0] - box[0], box[2] - frame[2], frame[1] - box[1], box[3] - frame[3], 0)
    return sum(_overlap(box, other) for other in taken) + 50 * outside + 2 * float(np.hypot(*offset))


_OFFSETS = [
    length * np.array([np.cos(angle), np.sin(angle)])
    for length in (14, 22, 34, 48, 66)
    for angle in np.deg2rad((20, -20, 160, 200, 50, -50, 130, 230, 75, -75, 105, 255))
]


def _box(home: np.ndarray, offset: np.ndarray, size: np.ndarray) -> tuple[float, float, float, float]:
    x, y = home + offset
    left = x if offset[0] > 0 else x - size[0]
    return left, y - size[1] / 2, left + size[0], y + size[1] / 2


def _overlap(a: tuple, b: tuple) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


_STYLE = {
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.7, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12, "grid.linewidth": 0.7,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip


@contextlib.contextmanager
def _style(**more) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | more)
        yield
