"""AutoAttack: a parameter-free ensemble of attacks that fail for different reasons. Croce & Hein 2020 (arXiv 2003.01690).

    cascade = autoattack.standard(autoattack.LINF, eps=8 / 255)

Parameters are those of the official code at commit a392200. With fewer than 10 classes, where that code fails, there are
K - 1 targets, and `objectives.dlr`, `targeted_dlr` say what stands in for the logits that they lack. Deviations of each
attack: in its file. `robustgen.cascade.evaluate` runs a cascade on a data set.
"""

from typing import Callable, NamedTuple

from robustgen.attacks import norms
from robustgen.attacks.apgd import apgd, apgd_targeted
from robustgen.attacks.fab import fab, fab_t
from robustgen.attacks.objectives import cross_entropy, dlr
from robustgen.attacks.search import Cascade, Search
from robustgen.attacks.square import square_linf
from robustgen.attacks.square_l2 import square_l2
from robustgen.attacks.starts import edge
from robustgen.core import Threat
from robustgen.knobs import NonNegative, checked
from robustgen.threats import l2, linf
from robustgen.threats.geometry import Clip


class Family(NamedTuple):
    """What the ensemble needs for one norm: the set, its norm, and the random search that works in it."""

    norm: norms.Norm
    threat: Callable[..., Threat]
    square: Callable[..., Search]


LINF = Family(norms.linf, linf, square_linf)
L2 = Family(norms.l2, l2, square_l2)


@checked
def standard(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5000 queries): the leaderboards' version."""
    make = _Makers(family, family.threat(eps, clip), eps, clip)
    searches = make.apgd_ce(1), make.apgd_t(), make.fab_t(), make.square()
    return Cascade("AutoAttack", make.threat, searches)


@checked
def plus(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE, APGD-DLR and FAB with 5 restarts, Square, APGD-T, FAB-T."""
    make = _Makers(family, family.threat(eps, clip), eps, clip)
    searches = make.apgd_ce(5), make.apgd_dlr(5), make.fab(), make.square(), make.apgd_t(), make.fab_t()
    return Cascade("AutoAttack+", make.threat, searches)


@checked
def rand(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE and APGD-DLR, for randomised defences: give it the defence's `attacks.expected` (20 samples)."""
    make = _Makers(family, family.threat(eps, clip), eps, clip)
    return Cascade("AutoAttack-rand", make.threat, (make.apgd_ce(1), make.apgd_dlr(1)))


class _Makers(NamedTuple):
    family: Family
    threat: Threat
    eps: float
    clip: Clip | None

    def _apgd(self, factory: Callable[..., Search], **knobs) -> Search:
        start = edge(self.family.norm.direction, self.eps)
        return factory(self.threat, eps=self.eps, start=start, num_steps=100, **knobs)

    def apgd_ce(self, num_restarts: int) -> Search:
        return self._apgd(apgd, name="apgd-ce", objective=cross_entropy, num_restarts=num_restarts)

    def apgd_dlr(self, num_restarts: int) -> Search:
        return self._apgd(apgd, name="apgd-dlr", objective=dlr, num_restarts=num_restarts)

    def apgd_t(self) -> Search:
        return self._apgd(apgd_targeted, name="apgd-t", num_targets=9, num_restarts=1)

    def _fab(self, factory: Callable[..., Search], **knobs) -> Search:
        shared = {"eps": self.eps, "clip": self.clip, "num_steps": 100, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
        return factory(self.family.norm, **shared, **knobs)

    def fab(self) -> Search:
        return self._fab(fab, num_restarts=5)

    def fab_t(self) -> Search:
        return self._fab(fab_t, num_targets=9, num_restarts=1)

    def square(self) -> Search:
        return self.family.square(eps=self.eps, clip=self.clip, p_init=0.8, num_queries=5000, num_restarts=1)
