"""Whether examples, model, box and radius speak of the same units: a wrong one makes every model robust.

The limits are chosen, there being no source; each says how.
"""

from collections.abc import Callable, Mapping

import numpy as np

from robustgen.evaluation.validity.finding import Finding, beyond

Rescaling = Callable[[np.ndarray], np.ndarray]

RESCALINGS: Mapping[str, Rescaling] = {
    "255 x": lambda x: 255 * x,
    "x / 255": lambda x: x / 255,
    "2 x - 1": lambda x: 2 * x - 1,
    "(x + 1) / 2": lambda x: (x + 1) / 2,
    "(x - mean) / std": lambda x: (x - x.mean()) / (x.std() + 1e-12),
}
"""Conventions that inputs come in, by how they are reached from x."""


def outside_box(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Finding:
    """lower, upper: what the threat set allows at any radius, shaped like x [N, ...]; infinite without a box."""
    return beyond(
        "inputs outside the box", 100 * np.mean((x < lower) | (x > upper)), 0.0,
        "Percent of input values outside the box that adversarial examples are clipped to: clipping alone changes "
        "them, by any amount.",
        "Give the threat set the clip of these inputs, or scale them into it.",
    )  # fmt: skip


def radius_too_small(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Finding:
    """lower, upper: the bounds of the threat set, shaped like x. Flagged below the limit."""
    reach = float(np.max(upper - lower) / 2 / max(np.ptp(x), 1e-12))
    limit = 1e-3
    return Finding(
        "radius against the range of inputs", reach < limit, reach, limit,
        "How far the set reaches, as a share of the range of the inputs; flagged below the limit (chosen: half the "
        "smallest radius in common use, 0.5/255). Radius and inputs are in different units.",
        "Give eps in the units of the inputs: 8/255 for [0, 1] is 8 for [0, 255].",
    )  # fmt: skip


def other_range(clean: float, rescaled: Mapping[str, float]) -> Finding:
    """clean: accuracy at x; rescaled: accuracies at x rescaled as in `RESCALINGS`."""
    best = max(rescaled, key=rescaled.__getitem__)
    return beyond(
        "model expects another input range", 100 * (rescaled[best] - clean), 10.0,
        f"Points of clean accuracy gained where the model is fed {best} (limit chosen: a right range loses by each of "
        f"{', '.join(rescaled)}). Normalised twice, or not at all: the radius means something else inside the model.",
        f"Put the normalisation into the model, once; here {best} is the range it was trained on.",
    )  # fmt: skip
