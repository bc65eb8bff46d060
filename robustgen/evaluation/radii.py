"""Certified accuracy against the radius, from one certified radius an example.

`held` [N] is the radius within which an example is certified to be classified as its label: -1 where the prediction is
wrong or abstained, so that such an example is right at no radius, 0 included.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from robustgen.core import Estimate
from robustgen.evaluation.draw import COLORS, grid, legend, styled
from robustgen.evaluation.intervals import Confidence, t_interval, wilson
from robustgen.knobs import KnobError, checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRONG = -1.0
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (8, 2)))


def held_radius(prediction: np.ndarray, radius: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`radius` [N] where `prediction` [N] is the label, -1 elsewhere; float64."""
    return np.where(np.asarray(prediction) == y, np.asarray(radius, np.float64), WRONG)


@checked
def certified_accuracy(held: np.ndarray, radii: Sequence[float], confidence: Confidence = 0.95) -> list[Estimate]:
    """The share of examples certified at each of `radii`, with its Wilson interval over examples, one radius each.

    An example certified at exactly a radius counts there, as in Cohen et al. 2019 (arXiv 1902.02918), section 4.
    """
    held, radii = np.asarray(held, np.float64), np.asarray(radii, np.float64)
    if not np.all(radii >= 0):
        raise KnobError("radii", f"must be >= 0; got {radii.tolist()}")
    return [wilson(int(np.sum(held >= radius)), len(held), confidence) for radius in radii]


def average_certified_radius(held: np.ndarray) -> Estimate:
    """ACR, Zhai et al. 2020 (arXiv 2001.02378), section 5: the mean radius, 0 where wrong or abstained, and Student's
    interval over examples."""
    return t_interval(np.maximum(held, 0))


def at_least(share: float, n: int, *, alpha: float, rho: float = 0.001) -> float:
    """What the certified accuracy of the smoothed classifier itself is at least, with probability 1 - rho, on these n
    examples: `share` less the most certificates that may be wrong.

    Each fails with probability at most `alpha`, so their number is below a Binomial(n, alpha)'s 1 - rho quantile: the
    exact form of what Cohen et al. 2019 bound (HighProbAccuracy in locuslab/smoothing). Never below 0.
    """
    failures = int(np.searchsorted(special.bdtr(np.arange(n + 1), n, alpha), 1 - rho))
    return max(share - failures / n, 0.0)


@styled
def certified_curves(held: Mapping[str, np.ndarray], num_points: int = 400) -> "Figure":
    """Certified accuracy [%] against the L2 radius, one line a row of `held`, the band its 95 % Wilson interval."""
    figure, (ax,) = grid(1, 1, (6.4, 4.2))
    most = max(float(np.max(one)) for one in held.values())
    radii = np.linspace(0, 1.05 * max(most, 1e-3), num_points)
    for i, (name, one) in enumerate(held.items()):
        value, lower, upper = 100 * np.array([e[:3] for e in certified_accuracy(one, radii)]).T
        color = COLORS[i % len(COLORS)]
        ax.plot(radii, value, color=color, ls=_DASHES[(i // len(COLORS) + i) % len(_DASHES)], lw=1.7, label=name)
        ax.fill_between(radii, lower, upper, color=color, alpha=0.13, lw=0)
    ax.set(xlabel="L2 radius", ylabel="certified accuracy (%)", xlim=(0, radii[-1]), ylim=(-1, 101))
    legend(figure, ax)
    return figure
