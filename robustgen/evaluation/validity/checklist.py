"""What of "On Evaluating Adversarial Robustness" can be run: Carlini et al. 2019 (arXiv 1902.06705), sections 4 and 5.

Everywhere, `standing` [N] are those that withstand the evaluated attack, which who is misclassified at x does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustgen.evaluation.validity.finding import CHOSEN_POINTS, POINTS, Finding, beyond, missed

RECORDED = ("eps", "objective", "num_steps", "num_restarts")


def single_step_better(standing: np.ndarray, single_step: np.ndarray) -> Finding:
    """single_step [N]: who withstands FGSM."""
    return beyond(
        "single step is stronger", missed(standing, single_step), POINTS,
        "Points of robust accuracy that a single step takes from an iterative attack, example by example (limit: "
        "AutoAttack's 0.2). Iterating must not lose: steps too large, gradients masked, or a label leak.",
        "Look at the loss along the attack; keep its best iterate; take smaller steps from random starts.",
    )  # fmt: skip


def noise_better(standing: np.ndarray, noise: np.ndarray, accuracy: float) -> Finding:
    """noise [N]: who is right in all of 100 random members of the set; `accuracy`: how often they are, on average."""
    return beyond(
        "random noise is stronger", missed(standing, noise), POINTS,
        f"Points of robust accuracy that 100 random draws take from the attack (limit: AutoAttack's 0.2); accuracy "
        f"under one draw is {100 * accuracy:.1f} %. Blind search must not find what gradients do not.",
        "The attack fails: check its gradients (below), and that it starts at random.",
    )  # fmt: skip


def stronger_better(standing: np.ndarray, stronger: np.ndarray) -> Finding:
    """stronger [N]: who withstands the attack with more steps, or with another objective."""
    return beyond(
        "a stronger attack breaks more", missed(standing, stronger), CHOSEN_POINTS,
        "Points of robust accuracy that more steps or another objective take (limit chosen: "
        "evaluation.validity.finding). The attack was stopped before it converged, or maximises "
        "what does not break this model.",
        "Double the steps until nothing changes; attack cross-entropy and margin alike, as AutoAttack does.",
    )  # fmt: skip


def restart_better(standing: np.ndarray, again: np.ndarray) -> Finding:
    """again [N]: who withstands the attack run anew, from other random numbers."""
    return beyond(
        "restarts break more", missed(standing, again), CHOSEN_POINTS,
        "Points of robust accuracy that the same attack takes when run once more (limit chosen: "
        "evaluation.validity.finding). Its outcome is luck.",
        "Add restarts until nothing changes, and report the worst case over them.",
    )  # fmt: skip


def rising_with_eps(eps: Sequence[float], robust: Sequence[float]) -> Finding:
    """robust [E]: robust accuracy at ascending radii `eps`."""
    rises = np.diff(np.asarray(robust, float), prepend=robust[0])
    return beyond(
        "robust accuracy rises with eps", 100 * np.max(rises), CHOSEN_POINTS,
        f"Largest rise, in points, from one radius to the next of {_listed(eps)} (limit chosen: "
        f"evaluation.validity.finding). Accuracies: {_listed([100 * share for share in robust])} %. A larger set holds "
        "the smaller.",
        "The attack fails at the larger radius: scale its steps with eps, and start from what smaller radii found.",
    )  # fmt: skip


def unbounded_stands(standing: np.ndarray) -> Finding:
    """standing [N] at a radius that reaches all of the box. Also the sixth indicator of Pintor et al. 2022
    (arXiv 2106.09947), unconstrained attack failure."""
    return beyond(
        "unbounded attack fails", 100 * np.mean(standing), 0.0,
        "Robust accuracy in percent where any input is allowed, which an attack that works brings to 0 (Carlini et al. "
        "2019; Pintor et al. 2022).",
        "The attack, its gradients or the input range is broken: nothing it says of smaller radii can be believed.",
    )  # fmt: skip


def label_leaks(clean: np.ndarray, single_step: np.ndarray) -> Finding:
    """clean, single_step [N]: who is right at x, and at the outcome of FGSM with the true label, whatever it is."""
    return beyond(
        "label leaking", 100 * (np.mean(single_step) - np.mean(clean)), POINTS,
        "Points by which accuracy under a single step is above the clean (Kurakin et al. 2017, arXiv 1611.01236; "
        "limit: AutoAttack's 0.2). The model reads the true label off the perturbation.",
        "Attack without the label (the predicted class, a random target, a random start), and iterate.",
    )  # fmt: skip


def unrecorded(settings: Mapping[str, Any]) -> Finding:
    """settings: the hyper-parameters that are stored with the results."""
    missing = [name for name in RECORDED if settings.get(name) is None]
    return beyond(
        "hyper-parameters unrecorded", len(missing), 0.0,
        f"How many of {', '.join(RECORDED)} the evaluation does not state: {', '.join(missing) or 'none'}.",
        "State them: without, nobody can repeat or judge the number.",
    )  # fmt: skip


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers)
