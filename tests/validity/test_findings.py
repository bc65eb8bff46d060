"""Each check alone, on numbers made by hand; thresholds at both sides."""

import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import strategies as st

from robustgen.evaluation.tables import console_table, markdown_table
from robustgen.evaluation.validity import binarization, checklist, failures, findings_table, flagged, inputs, outputs

YES, NO = np.ones(4, bool), np.zeros(4, bool)
ONE = np.array([True, False, False, False])


def passes(change: float) -> np.ndarray:
    found = np.zeros((5, 3, 2))
    found[3, 1, 0] = change
    return found


CASES = {  # (finding where all is well, finding where it is not)
    "randomised": (outputs.randomised(passes(9e-5)), outputs.randomised(passes(2e-4))),
    "batch": (
        outputs.batch_dependent(np.full((3, 2), 1e4), np.full((3, 2), 1e4 + 0.5)),
        outputs.batch_dependent(np.zeros((3, 2)), np.full((3, 2), 2e-4)),
    ),
    "probabilities": (
        outputs.probabilities(np.array([[0.5, 0.50002], [1.0, 0.0]])),
        outputs.probabilities(np.array([[0.5, 0.500001], [1.0, 0.0]])),
    ),
    "negative": (outputs.probabilities(np.array([[2.0, -1.0]])), outputs.probabilities(np.array([[1.0, 0.0]]))),
    "zero": (
        outputs.zero_gradients("dlr", np.diag([0, 1.0, -1, 1]), ~ONE),
        outputs.zero_gradients("dlr", np.diag([0, 1.0, -1, 1]), YES),
    ),
    "black": (outputs.black_box_better(ONE, YES), outputs.black_box_better(YES, ~ONE)),
    "single": (checklist.single_step_better(NO, NO), checklist.single_step_better(YES, ~ONE)),
    "noise": (checklist.noise_better(ONE, YES, 1.0), checklist.noise_better(YES, ~ONE, 0.9)),
    "stronger": (
        checklist.stronger_better(np.ones(50, bool), np.arange(50) > 0),
        checklist.stronger_better(np.ones(49, bool), np.arange(49) > 0),
    ),
    "restart": (checklist.restart_better(ONE, YES), checklist.restart_better(YES, ~ONE)),
    "eps": (
        checklist.rising_with_eps([0.1, 0.2, 0.4], [0.5, 0.5, 0.51]),
        checklist.rising_with_eps([0.1, 0.2, 0.4], [0.5, 0.3, 0.4]),
    ),
    "unbounded": (checklist.unbounded_stands(NO), checklist.unbounded_stands(ONE)),
    "leak": (checklist.label_leaks(YES, YES), checklist.label_leaks(~ONE, YES)),
    "recorded": (
        checklist.unrecorded({"eps": 0.1, "objective": "margin", "num_steps": 5, "num_restarts": 1}),
        checklist.unrecorded({"eps": 0.1, "objective": "margin", "num_steps": None}),
    ),
    "box": (inputs.outside_box(*map(np.array, ([0, 1], 0, 1))), inputs.outside_box(*map(np.array, ([0, 1.1], 0, 1)))),
    "radius": (
        inputs.radius_too_small(*map(np.array, ([0, 255.0], [0, 254.0], [1.0, 255.0]))),
        inputs.radius_too_small(*map(np.array, ([0, 255.0], [0, 254.9], [0.1, 255.0]))),
    ),
    "range": (inputs.other_range(0.8, {"255 x": 0.85, "x / 255": 0.1}), inputs.other_range(0.1, {"255 x": 0.3})),
    "unavailable": (
        failures.unavailable_gradients(np.ones((4, 2)), YES),
        failures.unavailable_gradients(np.array([[1.0, np.nan]] + 3 * [[1.0, 1.0]]), YES),
    ),
    "none": (failures.unavailable_gradients(np.ones((4, 2)), YES), failures.unavailable_gradients(None, YES)),
    "wrong": (
        failures.wrong_gradients(np.array([[1.0, 2]]), np.array([[1.1, 2]])),
        failures.wrong_gradients(np.array([[0.4, 0.8]]), np.array([[1.0, 2]])),
    ),
    "unstable": (
        failures.unstable_predictions(np.array([-1.0, 0, 2]), np.array([-1.05, 9, 2.1]) + np.zeros((100, 1))),
        failures.unstable_predictions(np.array([-1.0, 0, 2]), np.array([-1.0, 0.2, 2.4]) + np.zeros((100, 1))),
    ),
    "silent": (failures.silent_success(~ONE, ONE[None]), failures.silent_success(YES, np.stack([ONE, NO]))),
    "transfer": (
        failures.transfer_failure(np.zeros(50), np.arange(50) == 0),
        failures.transfer_failure(np.zeros(49), np.arange(49) == 0),
    ),
    "binarization": (binarization.success(YES, YES, NO), binarization.success(YES, ~ONE, NO)),
    "separated": (binarization.success(~ONE, ~ONE, NO), binarization.success(NO, YES, NO)),
}


@pytest.mark.parametrize("name", CASES)
def test_flags_beyond_its_threshold_and_not_before(name):
    well, ill = CASES[name]
    assert not well.flagged and ill.flagged
    assert well.name == ill.name and ill.advice and str(ill.explanation).endswith(".")


def official_incomplete(loss: np.ndarray) -> bool:
    """Indicator 4 as the paper words it, one example, for a loss that is minimised."""
    scaled = (loss - loss.min()) / (loss.max() - loss.min()) if loss.max() > loss.min() else 0 * loss
    best = [min(scaled[: t + 1]) for t in range(len(scaled))][-10:]
    return max(best) - min(best) > 0.05


@hypothesis.given(arrays.arrays(np.float64, (17, 3), elements=st.floats(-5, 5, width=32)))
def test_incomplete_optimisation_is_that_of_the_paper(losses):
    """Ours are maximised."""
    expected = [official_incomplete(-column) for column in losses.T]
    np.testing.assert_array_equal(failures.last_gain(losses) > failures.INCOMPLETE, expected)
    finding = failures.incomplete_optimisation(np.ones(3, bool), losses)
    np.testing.assert_allclose(finding.value, 100 * np.mean(expected))
    assert finding.flagged == (np.mean(expected) > 0.1)


def test_nothing_stands_nothing_is_incomplete():
    assert not failures.incomplete_optimisation(NO, np.arange(40.0).reshape(10, 4)).flagged


@pytest.mark.parametrize(("num_inner", "num_features"), [(6, 8), (1, 2), (30, 100), (200, 8)])
def test_heads_separate_and_are_tight(num_inner, num_features):
    """The rim's point, farther out than the others, is just beyond; the others are far off."""
    draw = np.random.default_rng(num_inner).standard_normal
    inner, outer = draw((num_inner, 5, num_features)), draw((5, num_features))
    inner, outer = 3 + 0.01 * inner, 3 + 0.1 * outer / np.linalg.norm(outer, axis=-1, keepdims=True)
    made = binarization.heads(inner, outer)
    weight, bias = (np.asarray(part, np.float64) for part in (made.weight, made.bias))
    scores = np.einsum("snf,nf->sn", inner, weight) + bias
    point = np.einsum("nf,nf->n", outer, weight) + bias
    assert made.separates.all()
    assert np.all(scores < 0) and np.all(point > 0)
    assert np.all(point < 0.01 * -scores.max(0))
    np.testing.assert_allclose(point - scores.mean(0), 2, rtol=1e-3)


def test_heads_are_the_discriminant_of_fisher():
    """Many points: weights are along the inverse covariance times the difference of the means."""
    draw = np.random.default_rng(0).standard_normal
    inner, outer = draw((500, 3, 4)) @ (np.eye(4) + 0.2 * draw((4, 4))), 5 * draw((3, 4))
    weight = np.asarray(binarization.heads(inner, outer).weight, np.float64)
    for i in range(3):
        fisher = np.linalg.solve(np.cov(inner[:, i].T), outer[i] - inner[:, i].mean(0))
        np.testing.assert_allclose(weight[i] / np.linalg.norm(weight[i]), fisher / np.linalg.norm(fisher), atol=0.03)


def test_heads_that_cannot_separate_say_so():
    """The rim's point in the midst of the others."""
    inner = np.array([[[0.0]], [[2.0]]])
    assert not binarization.heads(inner, np.array([[1.0]])).separates.any()


def test_the_table_has_flagged_first_with_advice():
    findings = [CASES["eps"][0], CASES["silent"][1]]
    table = findings_table(findings)
    assert flagged(findings) == ["silent success"]
    assert [row[1].value for row in table.rows] == ["silent success", "robust accuracy rises with eps"]
    assert len(table.notes) == 1 and findings[1].advice in table.notes[0]
    assert "1 of 2 checks flagged" in console_table(table) and "silent success" in markdown_table(table)
