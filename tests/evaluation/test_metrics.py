"""Numbers from hand-made columns."""

import numpy as np
import pytest

from robustgen.evaluation import metrics
from robustgen.evaluation.intervals import newcombe, t_interval, wilson


def hand_made(clean, broken_a=(), broken_b=(), proved=(), n=10):
    right = np.isin(np.arange(n), clean)
    return {
        "index": np.arange(n),
        "label": np.ones(n, int),
        "clean": right,
        "prediction": right.astype(int),
        "confidence": np.linspace(0.5, 1.0, n),
        "robust:a": right & ~np.isin(np.arange(n), broken_a),
        "robust:b": right & ~np.isin(np.arange(n), broken_b),
        "certified:c": np.isin(np.arange(n), proved),
        "falsified:c": np.zeros(n, bool),
    }


def test_outcomes_and_accuracies():
    columns = hand_made(range(8), broken_a=[0, 1], broken_b=[1, 2], proved=[5])
    for outcome, hits in [
        (metrics.clean, 8), (metrics.robust, 5), (metrics.robust_to("a"), 6), (metrics.certified, 1),
        (metrics.certified_by("c"), 1),
    ]:  # fmt: skip
        assert metrics.accuracy(outcome)(columns) == wilson(hits, 10)
    columns["falsified:c"][3] = True
    assert metrics.accuracy(metrics.robust)(columns).value == 0.4
    bare = {k: v for k, v in columns.items() if ":" not in k}
    assert metrics.accuracy(metrics.certified)(bare).value == 0.0
    assert metrics.accuracy(metrics.robust)(bare).value == 0.8


def test_gap_and_seeds():
    train, test = hand_made(range(20), n=20), hand_made(range(6), broken_a=[0])
    assert metrics.gap(train, test, metrics.clean) == newcombe(wilson(20, 20), wilson(6, 10))
    assert metrics.gap(train, test, metrics.robust).value == pytest.approx(0.5)
    seeds = [hand_made(range(k)) for k in (6, 7, 9)]
    mean = metrics.over_seeds(metrics.clean, seeds)
    assert mean.seeds == t_interval([0.6, 0.7, 0.9])
    assert mean.examples == wilson(22 / 3, 10) and mean.value == pytest.approx(22 / 30)
    gap = metrics.gap_over_seeds(metrics.clean, [train] * 3, seeds)
    np.testing.assert_allclose(gap.seeds, t_interval([0.4, 0.3, 0.1]))
    with pytest.raises(ValueError, match="different examples"):
        metrics.over_seeds(metrics.clean, [train, test])


def test_calibration_error_by_hand_and_against_a_loop():
    columns = hand_made([1], n=2) | {"confidence": np.array([0.62, 0.61])}
    assert metrics.calibration_error(columns).value == pytest.approx(0.115)  # one bin: |1/2 - 0.615|
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.1, 1, 3000)
    honest = {"confidence:pgd": confidence, "label": np.ones(3000), "prediction:pgd": draw.random(3000) < confidence}
    total = 0.0
    for low in range(15):
        rows = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        total += rows.mean() * abs(honest["prediction:pgd"][rows].mean() - confidence[rows].mean()) if rows.any() else 0
    found = metrics.calibration_error(honest, suffix=":pgd")
    assert found.value == pytest.approx(total) and found.value < 0.04 and found.lower < found.value < found.upper
