"""Indicators of attack failure: Pintor et al. 2022 (arXiv 2106.09947), and a check of gradients against differences.

After `src/indicators/indicators.py` at 874c661, which gives each example a number. Here one finding speaks of many
examples: its limits on shares of examples are chosen, as each says. Deviations otherwise:

1. unavailable gradients   also counts gradients that are not finite
2. unstable predictions    the loss is the margin, whatever the attack maximises: cross-entropies near 0 are unstable in
                           every confident model. The official 100 draws in a box 8/255 wide, whatever eps is
3. silent success          points outside the threat set do not count
4. incomplete optimisation the loss is the margin, over every evaluation of the attack, restarts one after the other
5. transfer failure        between the model that is attacked and the one that is judged
6. unconstrained attack failure is `checklist.unbounded_stands`
"""

import numpy as np

from robustgen.evaluation.validity.finding import CHOSEN_POINTS, Finding, beyond

UNSTABLE, INCOMPLETE, LAST_STEPS = 0.1, 0.05, 10
DRAWS, WIDTH = 100, 8 / 255


def unavailable_gradients(gradients: np.ndarray | None, right: np.ndarray) -> Finding:
    """gradients [N, ...] of the margin at x; None where taking them raised."""
    if gradients is None:
        lost = np.ones(len(right), bool)
    else:
        flat = gradients.reshape(len(gradients), -1)
        lost = ~np.any(flat, axis=1) | ~np.all(np.isfinite(flat), axis=1)
    return beyond(
        "unavailable gradients", 100 * np.mean(lost[right]) if right.any() else 0.0, 0.0,
        "Percent of rightly classified examples without a gradient of the margin: zero, not finite, or not to be had "
        "(indicator 1; the official code flags any).",
        "Differentiate through the whole model, by attacks.bpda where a part has no derivative.",
    )  # fmt: skip


def wrong_gradients(slopes: np.ndarray, differences: np.ndarray) -> Finding:
    """slopes, differences [N, D]: of the margin along D directions, by gradient and by central difference.

    The share of the differences' power that the gradient leaves unexplained: 0 for a smooth model, 1 for no gradient.
    """
    power = float(np.sum(differences**2))
    value = float(np.sum((slopes - differences) ** 2)) / power if power else 0.0
    return beyond(
        "gradients are not those of the model", value, 0.25,
        "Share of the power of finite differences that gradients do not explain (limit chosen: errors of half a "
        "slope). Part of the model is cut from differentiation, quantised, random, or has a false derivative.",
        "Find stop_gradient, rounding, argmax and custom derivatives in the model; differentiate through them "
        "(attacks.bpda).",
    )  # fmt: skip


def unstable_predictions(loss: np.ndarray, nearby: np.ndarray) -> Finding:
    """loss [N] at x; nearby [D, N] at D = 100 points around it."""
    size = np.where(loss == 0, 1.0, np.abs(loss))
    change = np.minimum(np.mean(np.abs(nearby - loss) / size, axis=0), 1.0)
    return beyond(
        "unstable predictions", np.median(change), UNSTABLE,
        "Relative change of the loss over 100 random points within 4/255, capped at 1, of the median example "
        "(indicator 2; the limit of 10 % and the median are chosen, the official code leaves it a number). The loss is "
        "too rough for its gradient to lead anywhere.",
        "Smooth the loss: average gradients over noise around each point (attacks.eot), and use more restarts.",
    )  # fmt: skip


def silent_success(standing: np.ndarray, visited: np.ndarray) -> Finding:
    """visited [T, N]: whether evaluation t was of a misclassified member of the set."""
    return beyond(
        "silent success", 100 * np.mean(standing & visited.any(0)), 0.0,
        "Percent of examples for which the attack evaluated an adversarial example and returned another point "
        "(indicator 3; the official code flags any).",
        "Return the best point of the path, not the last: pass a judge to the attack.",
    )  # fmt: skip


def incomplete_optimisation(standing: np.ndarray, losses: np.ndarray) -> Finding:
    """losses [T, N]: what the attack maximises, at each evaluation."""
    gains = last_gain(losses)[standing]
    return beyond(
        "incomplete optimisation", 100 * np.mean(gains > INCOMPLETE) if len(gains) else 0.0, 10.0,
        "Percent of the examples still standing whose best loss rose by more than 0.05 of its range in the last 10 "
        "evaluations (indicator 4; the share of examples is chosen).",
        "Add steps, or enlarge them: the attack was still finding worse points.",
    )  # fmt: skip


def last_gain(losses: np.ndarray) -> np.ndarray:
    """By how much the best of losses [T, N] rose over the last 10 evaluations, in shares of each one's range, [N]."""
    lowest, span = np.min(losses, 0), np.ptp(losses, 0)
    best = np.maximum.accumulate((losses - lowest) / np.where(span == 0, 1.0, span), axis=0)
    tail = best[-LAST_STEPS:]
    return tail[-1] - tail[0]


def transfer_failure(attacked: np.ndarray, judged: np.ndarray) -> Finding:
    """attacked, judged [N]: classes at x_adv, of the model that the attack saw and of the one that is reported on."""
    return beyond(
        "transfer failure", 100 * np.mean(attacked != judged), CHOSEN_POINTS,
        "Percent of adversarial examples that the judged model classifies otherwise than the attacked one (indicator "
        "5; limit chosen: evaluation.validity.finding).",
        "Attack the model that is judged: every preprocessing, detector and random draw included.",
    )  # fmt: skip
