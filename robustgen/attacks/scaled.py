"""Attacks for any radius, for evaluations and security curves: `(threat, eps) -> Attack`."""

from collections.abc import Callable

from robustgen.attacks.combine import restarts
from robustgen.attacks.objectives import margin
from robustgen.attacks.pgd import pgd
from robustgen.core import Array, Attack, Objective, Threat
from robustgen.knobs import Count, Positive, checked


@checked
def scaled_pgd(
    *,
    objective: Objective,
    relative_step: Positive,
    num_steps: Count,
    num_restarts: Count,
    judge: Objective = margin,
) -> Callable[[Threat, Array], Attack]:
    """PGD with step_size = relative_step * eps from `num_restarts` uniform starts, the best member by `judge` kept.

    Its PGD-50 x 10 with relative_step = 0.1 is written PGD-50x10 in tables.
    """

    def at(threat: Threat, eps: Array) -> Attack:
        once = pgd(threat, objective=objective, step_size=relative_step * eps, num_steps=num_steps, judge=judge)
        return restarts(once, judge=judge, num_restarts=num_restarts)

    return at
