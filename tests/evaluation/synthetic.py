"""Runs made by hand: accuracies that are known, on the same examples for every run."""

import numpy as np

from robustgen.evaluation.curves import Curve
from robustgen.evaluation.results import Examples, Run

SETTINGS = (
    ("TRADES", {"beta": 0.0}, 0.98, 0.45, 0.0),
    ("TRADES", {"beta": 6.0}, 0.95, 0.85, 0.0),
    ("IBP", {"kappa": 0.5}, 0.90, 0.70, 0.50),
)


def made_columns(clean: float, robust: float, certified: float, *, n: int, shift: int) -> dict[str, np.ndarray]:
    """The first `clean` of the examples are right, and so on; `shift` turns some of them over, seed by seed."""
    place = np.random.default_rng(0).permutation(n)
    place = np.where(np.arange(n) % 50 == shift, n - 1 - place, place)
    right, held, proved = (place < round(share * n) for share in (clean, robust, certified))
    label = np.arange(n) % 10
    return {
        "index": np.arange(n), "label": label, "clean": right, "prediction": np.where(right, label, (label + 1) % 10),
        "confidence": np.linspace(0.4, 1.0, n, dtype=np.float32), "margin": np.where(right, 1.0, -1.0),
        "robust:PGD-10": held, "prediction:PGD-10": np.where(held, label, (label + 3) % 10),
        "confidence:PGD-10": np.linspace(0.3, 0.9, n, dtype=np.float32),
        "margin:PGD-10": 0.5 - place / n, "distance_linf:PGD-10": np.full(n, 0.1),
        "certified:IBP": proved, "falsified:IBP": np.zeros(n, bool), "margin_lower:IBP": np.where(proved, 1.0, -1.0),
    }  # fmt: skip


def made_run(method: str, knobs: dict, clean: float, robust: float, certified: float, seed: int, n: int = 400) -> Run:
    columns = made_columns(clean, robust, certified, n=n, shift=seed)
    train = made_columns(min(1, clean + 0.02), min(1, robust + 0.05), certified, n=2 * n, shift=seed)
    epoch = np.arange(1, 21)
    history = {"epoch": epoch} | {
        f"{split}_{what}": level * (1 - np.exp(-epoch / 5))
        for split in ("train", "validation") for what, level in (("clean", clean), ("robust", robust))
    }  # fmt: skip
    eps = np.array([0.0, 0.1, 0.2, 0.4])
    robust_at = np.stack([columns["clean"], columns["robust:PGD-10"], columns["certified:IBP"], np.zeros(n, bool)])
    curve = Curve(eps, robust_at, np.stack([columns["certified:IBP"]] * 2 + [np.zeros(n, bool)] * 2))
    return Run(method, seed, knobs, columns, train, history, curve, made_examples() if seed == 0 else None)


def made_examples() -> Examples:
    x = np.random.default_rng(1).random((3, 8, 8, 1)).astype(np.float32)
    label, confidence = np.arange(3), np.array([0.9, 0.8, 0.7], np.float32)
    kind = np.array(["worst", "median", "surviving"])
    x_adv = np.clip(x + 0.1, 0, 1)
    return Examples("PGD-10", kind, label + 5, label, x, x_adv, label, confidence, np.array([9, 9, 2]), confidence)


def made_runs(seeds: int = 3) -> list[Run]:
    return [made_run(*setting, seed) for setting in SETTINGS for seed in range(seeds)]
