"""certified <= true robustness <= attacked: the two ends of it, by method and radius, as table and picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robustgen.core import Estimate
from robustgen.evaluation.draw import COLORS, INK, grid, legend, styled
from robustgen.evaluation.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ladder(NamedTuple):
    """What is known of N examples at one radius.

    names: what was asked, in order: the clean prediction, the attack, then certifiers. broken_by, proved_by [N]: the
    number of the name that decided an example, or -1. seconds: spent on each name, compiling included.
    """

    eps: float
    names: tuple[str, ...]
    broken_by: np.ndarray
    proved_by: np.ndarray
    seconds: tuple[float, ...]

    def standing(self, up_to: int) -> Estimate:
        """The share that nothing up to a name's number broke."""
        fell = (self.broken_by >= 0) & (self.broken_by <= up_to)
        return wilson(int(np.sum(~fell)), len(fell))

    def proved(self, up_to: int) -> Estimate:
        """The share that a certifier up to a name's number proved."""
        return wilson(int(np.sum((self.proved_by >= 0) & (self.proved_by <= up_to))), len(self.proved_by))


def table(ladders: Sequence[Ladder]) -> str:
    """Markdown: per radius clean, standing under the attack, and proved by each certifier or a cheaper one [%], with
    Wilson 95 % intervals; undecided; seconds spent on the radius."""
    names = ladders[0].names
    head = ["eps", "clean", f"stands {names[1]}", *(f"proved, up to {name}" for name in names[2:])]
    head += ["undecided", "seconds", "n"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for ladder in ladders:
        n = len(ladder.proved_by)
        shares = [ladder.standing(0), ladder.standing(1), *(ladder.proved(k) for k in range(2, len(names)))]
        undecided = float(np.mean((ladder.proved_by < 0) & (ladder.broken_by < 0)))
        cells = [f"{ladder.eps:g}", *map(_percent, shares), f"{100 * undecided:.1f}", f"{sum(ladder.seconds):.0f}"]
        lines.append(" | ".join([*cells, str(n)]))
    return "\n".join(lines) + "\n"


def rows(ladders: Sequence[Ladder]) -> list[tuple]:
    """(eps, name, kind, value, lower, upper, n, seconds) of every share of `table`."""
    found = []
    for ladder in ladders:
        for number, name in enumerate(ladder.names):
            kind = "standing" if number < 2 else "proved"
            share = getattr(ladder, kind)(number)
            found.append((ladder.eps, name, kind, *share, round(ladder.seconds[number], 3)))
    return found


@styled
def picture(ladders: Sequence[Ladder]) -> "Figure":
    """Shares [%] against the radius: standing under the attack above, proved by each certifier below, between them,
    shaded, what is undecided; Wilson 95 % intervals at the two ends."""
    names, eps = ladders[0].names, np.array([ladder.eps for ladder in ladders])
    figure, (ax,) = grid(1, 1, (6.4, 4.2))
    upper = _series(ladders, lambda ladder: ladder.standing(1))
    ax.errorbar(eps, upper[0], yerr=upper[1:], color=COLORS[1], lw=1.8, capsize=2, label=f"stands {names[1]}")
    dashes = [(0, (1, 1.5)), (0, (3, 1.5)), (0, (6, 1.5)), "-"]
    for number in range(2, len(names)):
        lower = _series(ladders, lambda ladder, k=number: ladder.proved(k))
        last = number == len(names) - 1
        bars = {"yerr": lower[1:], "capsize": 2} if last else {}
        dash = dashes[-1] if last else dashes[(number - 2) % 3]
        ax.errorbar(
            eps,
            lower[0],
            color=COLORS[0],
            ls=dash,
            lw=1.8 if last else 1.1,
            label=f"proved, up to {names[number]}",
            **bars,
        )
    ax.fill_between(eps, lower[0], upper[0], color=COLORS[1], alpha=0.16, lw=0, label="undecided")
    clean = 100 * ladders[0].standing(0).value
    ax.axhline(clean, color=INK, lw=0.8, ls=":", label="clean")
    ax.set(xlabel="radius ε of the threat set", ylabel="test examples (%)", ylim=(-3, 103))
    legend(figure, ax)
    return figure


def _series(ladders: Sequence[Ladder], share) -> np.ndarray:
    """[3, radii]: value, and its distances to the lower and the upper end, in per cent."""
    found = np.array([share(ladder)[:3] for ladder in ladders])
    return 100 * np.stack([found[:, 0], found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]])


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.lower:.1f}, {100 * share.upper:.1f}]"
