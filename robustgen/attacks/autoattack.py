"""AutoAttack: parameter-free attacks that fail for different reasons. Croce & Hein 2020 (arXiv 2003.01690).

    cascade = autoattack.standard(autoattack.LINF, eps=8 / 255)

Parameters are those of the official code at commit a392200. With fewer than 10 classes, where that code fails, there
are K - 1 targets, and `objectives.dlr`, `targeted_dlr` say what stands in for the logits that they lack. Deviations of
each attack: in its file. `robustgen.cascade.evaluate` runs a cascade on a data set.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from robustgen.attacks import norms
from robustgen.attacks.adaptive import expected
from robustgen.attacks.apgd import apgd, apgd_targeted
from robustgen.attacks.apgd_l1 import ONE, SHRINKING, Phases, apgd_l1, apgd_l1_targeted
from robustgen.attacks.fab import fab, fab_t
from robustgen.attacks.objectives import cross_entropy, dlr
from robustgen.attacks.search import Cascade, Search
from robustgen.attacks.square import square_linf
from robustgen.attacks.square_l1 import square_l1
from robustgen.attacks.square_l2 import square_l2
from robustgen.attacks.starts import edge
from robustgen.core import Objective, Threat
from robustgen.knobs import NonNegative, checked
from robustgen.threats import l1, l2, linf
from robustgen.threats.geometry import Clip

_STEPS = 100  # of every APGD


class Ascent(NamedTuple):
    """APGD in one norm: untargeted(eps, clip, objective, name, num_restarts) and
    targeted(eps, clip, name, num_targets, num_restarts), all by name."""

    untargeted: Callable[..., Search]
    targeted: Callable[..., Search]


class Family(NamedTuple):
    """What the ensemble needs for one norm: the set, its norm, the random search that works in it, and APGD. `standard`
    has an APGD of its own, and numbers of restarts and targets."""

    norm: norms.Norm
    threat: Callable[..., Threat]
    square: Callable[..., Search]
    ascent: Ascent
    standard_ascent: Ascent
    standard_restarts: int
    standard_targets: int


def _with_momentum(norm: norms.Norm, threat: Callable[..., Threat]) -> Ascent:
    def make(factory: Callable[..., Search], *, eps: float, clip: Clip | None, **knobs) -> Search:
        start = edge(norm.direction, eps)
        return factory(threat(eps, clip), eps=eps, start=start, num_steps=_STEPS, **knobs)

    return Ascent(functools.partial(make, apgd), functools.partial(make, apgd_targeted))


def _sparse(phases: Phases) -> Ascent:
    make = functools.partial(functools.partial, num_steps=_STEPS, phases=phases)
    return Ascent(make(apgd_l1), make(apgd_l1_targeted))


def _of_momentum(norm: norms.Norm, threat: Callable[..., Threat], square: Callable[..., Search]) -> Family:
    ascent = _with_momentum(norm, threat)
    return Family(norm, threat, square, ascent, ascent, standard_restarts=1, standard_targets=9)


LINF = _of_momentum(norms.linf, linf, square_linf)
L2 = _of_momentum(norms.l2, l2, square_l2)
L1 = Family(norms.l1, l1, square_l1, _sparse(ONE), _sparse(SHRINKING), standard_restarts=5, standard_targets=5)


@checked
def standard(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5000 queries): the leaderboards' version.

    In the L1 ball (Croce & Hein 2021, arXiv 2103.01208), APGD-CE has 5 restarts and APGD-T 5 targets, and both begin in
    larger balls.
    """
    make = _Makers(family, family.standard_ascent, eps, clip)
    apgd_ce, apgd_t = make.apgd_ce(family.standard_restarts), make.apgd_t(family.standard_targets)
    return Cascade("AutoAttack", family.threat(eps, clip), (apgd_ce, apgd_t, make.fab_t(), make.square()))


@checked
def plus(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE, APGD-DLR and FAB with 5 restarts, Square, APGD-T, FAB-T."""
    make = _Makers(family, family.ascent, eps, clip)
    searches = make.apgd_ce(5), make.apgd_dlr(5), make.fab(), make.square(), make.apgd_t(9), make.fab_t()
    return Cascade("AutoAttack+", family.threat(eps, clip), searches)


@checked
def rand(family: Family, *, eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Cascade:
    """APGD-CE and APGD-DLR on the expected loss, for randomised defences: the net to attack is `attacks.eot(defence,
    num_samples=20, key=...)`. Broken is what the mean softmax of the draws gets wrong, at every step; the official code
    judges the last point by a single draw, which counts luck as success."""
    make = _Makers(family, family.ascent, eps, clip)
    searches = make.apgd_ce(1, expected(cross_entropy)), make.apgd_dlr(1, expected(dlr))
    return Cascade("AutoAttack-rand", family.threat(eps, clip), searches)


class _Makers(NamedTuple):
    family: Family
    ascent: Ascent
    eps: float
    clip: Clip | None

    def _apgd(self, objective: Objective, name: str, num_restarts: int) -> Search:
        factory = self.ascent.untargeted
        return factory(eps=self.eps, clip=self.clip, objective=objective, name=name, num_restarts=num_restarts)

    def apgd_ce(self, num_restarts: int, objective: Objective = cross_entropy) -> Search:
        return self._apgd(objective, "apgd-ce", num_restarts)

    def apgd_dlr(self, num_restarts: int, objective: Objective = dlr) -> Search:
        return self._apgd(objective, "apgd-dlr", num_restarts)

    def apgd_t(self, num_targets: int) -> Search:
        factory = self.ascent.targeted
        return factory(eps=self.eps, clip=self.clip, name="apgd-t", num_targets=num_targets, num_restarts=1)

    def _fab(self, factory: Callable[..., Search], **knobs) -> Search:
        shared = {"eps": self.eps, "clip": self.clip, "num_steps": 100, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
        return factory(self.family.norm, **shared, **knobs)

    def fab(self) -> Search:
        return self._fab(fab, num_restarts=5)

    def fab_t(self) -> Search:
        return self._fab(fab_t, num_targets=9, num_restarts=1)

    def square(self) -> Search:
        return self.family.square(eps=self.eps, clip=self.clip, p_init=0.8, num_queries=5000, num_restarts=1)
