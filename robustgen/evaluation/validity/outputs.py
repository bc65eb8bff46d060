"""Flags of AutoAttack (`checks.py`, flags_doc.md): properties of a model under which its attacks say little.

Croce & Hein 2020 (arXiv 2003.01690). Deviation: zero gradients are looked for in each objective, at x itself; the
official code looks in the DLR attacks alone, at their random start.
"""

import numpy as np

from robustgen.evaluation.validity.finding import POINTS, Finding, beyond, missed

SAME_LOGITS, SUMS_TO_ONE, FEW_CLASSES = 1e-4, 1e-5, 4


def randomised(passes: np.ndarray) -> Finding:
    """passes [5, N, K]: logits of equal inputs, one after the other."""
    return beyond(
        "randomised outputs", np.max(np.abs(passes - passes[:1])), SAME_LOGITS,
        "Largest difference between logits of the same input in 5 passes (AutoAttack's limit). A random model answers "
        "an attack on one draw with another.",
        "Attack the expected loss (attacks.eot with attacks.expected, 20 draws or more), judge on fresh draws, and "
        "report how often each example is broken.",
    )  # fmt: skip


def batch_dependent(logits: np.ndarray, alone: np.ndarray) -> Finding:
    """logits, alone [N, K]: of the same examples among different neighbours, at other places.

    Relative to the largest logit, as rounding is. Not a flag of AutoAttack: its limit, for what randomness with a fixed
    key, dropout and batch norm in training mode look like under jit.
    """
    size = max(1.0, float(np.max(np.abs(logits))))
    return beyond(
        "outputs depend on the batch", np.max(np.abs(logits - alone)) / size, SAME_LOGITS,
        "Largest relative difference between logits of the same input at different places in a batch (limit: that of "
        "randomised outputs). Dropout or noise is on with a fixed key, or batch norm in training mode.",
        "Evaluate the model in evaluation mode: running statistics, no dropout; if it is meant to be random, treat it "
        "as a randomised model.",
    )  # fmt: skip


def probabilities(logits: np.ndarray) -> Finding:
    """logits [N, K]. The value is the largest distance of a row's sum from 1; negative numbers are no probabilities."""
    away = float(np.max(np.abs(logits.sum(-1) - 1))) if np.min(logits) >= 0 else np.inf
    return Finding(
        "outputs are probabilities", away < SUMS_TO_ONE, away, SUMS_TO_ONE,
        "Largest distance of an output's sum from 1, infinite with negative outputs; flagged below the limit "
        "(AutoAttack's). Attacks take a second softmax of it, which flattens the loss.",
        "Hand over logits: leave out the model's last softmax.",
    )  # fmt: skip


def zero_gradients(objective: str, gradients: np.ndarray, right: np.ndarray) -> Finding:
    """gradients [N, ...] of an objective at x; `right` [N] says which examples an attack would be run on."""
    dead = ~np.any(gradients.reshape(len(gradients), -1), axis=1)
    return beyond(
        f"zero gradients ({objective})", 100 * np.mean(dead[right]) if right.any() else 0.0, 0.0,
        f"Percent of rightly classified examples where the gradient of {objective} is exactly 0 (AutoAttack warns of "
        "any). Ascent starts nowhere: the loss is saturated, the input quantised or the gradient cut.",
        "Use an objective of differences of logits (margin, dlr); a differentiable stand-in for what is not "
        "(attacks.bpda); and an attack without gradients (Square).",
    )  # fmt: skip


def few_classes(num_classes: int) -> Finding:
    """A note, never flagged: with fewer than 4 classes, objectives fall back as `attacks.objectives` says."""
    return Finding(
        "few classes (a note)", False, float(num_classes), float(FEW_CLASSES),
        "Number of classes. Below 4, targeted DLR has no fourth logit, below 3 DLR is the margin: not scale-free.", "",
    )  # fmt: skip


def black_box_better(white: np.ndarray, black: np.ndarray) -> Finding:
    """white [N]: who withstands all gradient-based attacks; black [N]: who withstands one without gradients."""
    return beyond(
        "black-box attack is stronger", missed(white, black), POINTS,
        "Points of robust accuracy that an attack without gradients takes after those with gradients (AutoAttack's "
        "limit). Gradients do not lead where the model is weak.",
        "Treat gradients as masked: attacks.bpda or transfer from an undefended model, more queries. Report the least.",
    )  # fmt: skip
