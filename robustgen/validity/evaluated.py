"""The attack whose evaluation is in question, at any radius, and the attacks that it is held against."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from robustgen.attacks.apgd import apgd, apgd_targeted
from robustgen.attacks.apgd_l1 import ONE, apgd_l1, apgd_l1_targeted
from robustgen.attacks.combine import worst_of
from robustgen.attacks.objectives import cross_entropy, margin
from robustgen.attacks.search import Search, as_attack
from robustgen.attacks.starts import uniform
from robustgen.core import Array, Attack, Threat
from robustgen.knobs import Count, checked
from robustgen.threats.geometry import Clip

AttackAt = Callable[[Threat, Array], Attack]
"""(threat, eps) -> Attack, its steps following the radius; eps is traced, so that all radii share a compile."""


class Evaluated(NamedTuple):
    """What is examined. `stronger_at`: more of the same, or another that should break no more. `settings`: what is
    stored with its results, at least eps, objective, num_steps and num_restarts."""

    attack_at: AttackAt
    stronger_at: AttackAt
    settings: Mapping[str, Any]


@checked
def thorough(*, eps: float, num_steps: Count, num_targets: Count) -> Evaluated:
    """APGD on cross-entropy and APGD-T, `num_steps` each; the stronger one is APGD-T with twice as many.

    Where nothing else is to be examined: what gradients can do against the model for the price.
    """

    def untargeted(threat: Threat, eps: Array) -> Search:
        return apgd(
            threat, eps=eps, start=uniform, objective=cross_entropy, name="apgd-ce", num_steps=num_steps, num_restarts=1
        )

    def targeted(threat: Threat, eps: Array, num_steps: int) -> Search:
        return apgd_targeted(
            threat, eps=eps, start=uniform, name="apgd-t", num_steps=num_steps, num_targets=num_targets, num_restarts=1
        )

    return _by_both(untargeted, targeted, eps, num_steps, num_targets, num_restarts=1)


@checked
def thorough_l1(*, eps: float, clip: Clip | None, num_steps: Count, num_targets: Count) -> Evaluated:
    """`thorough` in the L1 ball, by the APGD made for it: steps of few features (Croce & Hein 2021, algorithm 1).

    With 5 restarts on cross-entropy, as in AutoAttack. Fewer than 100 steps miss over a twentieth of what is there.
    """

    def untargeted(threat: Threat, eps: Array) -> Search:
        del threat
        knobs = dict(objective=cross_entropy, name="apgd-ce", num_steps=num_steps, num_restarts=5)
        return apgd_l1(eps=eps, clip=clip, phases=ONE, **knobs)

    def targeted(threat: Threat, eps: Array, num_steps: int) -> Search:
        del threat
        knobs = dict(name="apgd-t", num_steps=num_steps, num_targets=num_targets, num_restarts=1)
        return apgd_l1_targeted(eps=eps, clip=clip, phases=ONE, **knobs)

    return _by_both(untargeted, targeted, eps, num_steps, num_targets, num_restarts=5)


def _by_both(untargeted, targeted, eps: float, num_steps: int, num_targets: int, *, num_restarts: int) -> Evaluated:
    def both(threat: Threat, eps: Array) -> Attack:
        searches = untargeted(threat, eps), targeted(threat, eps, num_steps)
        return worst_of([as_attack(search) for search in searches], judge=margin)

    settings = {
        "eps": eps, "objective": "cross_entropy, targeted_dlr", "num_steps": num_steps, "num_targets": num_targets,
        "num_restarts": num_restarts,
    }  # fmt: skip
    return Evaluated(both, lambda threat, eps: as_attack(targeted(threat, eps, 2 * num_steps)), settings)


@checked
def square_at(square: Callable[..., Search], *, clip: Clip | None, num_queries: Count) -> AttackAt:
    """`square_linf`, `square_l2` or `square_l1`, as the attack without gradients; p_init = 0.8 as in AutoAttack."""

    def at(threat: Threat, eps: Array) -> Attack:
        del threat
        return as_attack(square(eps=eps, clip=clip, p_init=0.8, num_queries=num_queries, num_restarts=1))

    return at
