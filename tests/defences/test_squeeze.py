"""Feature squeezing against scipy, NumPy and arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustgen import attacks, defences
from robustgen.knobs import KnobError

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(size=(4, 7, 6, 2)), jnp.float32)
W = jnp.asarray(DRAW.standard_normal((84, 3)), jnp.float32)


def model(x):
    return x.reshape(len(x), -1) @ W


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_median_is_scipys(size):
    expected = scipy.ndimage.median_filter(np.asarray(X), size=(1, size, size, 1), mode="reflect")
    np.testing.assert_array_equal(defences.median(size=size)(X, None), expected)


def test_bit_depth_is_the_nearest_level():
    x = jnp.linspace(0, 1, 1001)[:, None]
    for bits in (1, 3, 8):
        levels = np.linspace(0, 1, 2**bits)
        distance = np.abs(np.asarray(x) - levels)
        out = np.asarray(defences.bit_depth(bits=bits)(x, None))
        np.testing.assert_allclose(np.abs(out - x)[:, 0], distance.min(1), atol=1e-6)
        assert len(np.unique(out)) == 2**bits


def test_disagreement_is_the_largest_l1_distance_of_softmaxes(key):
    squeezers = [defences.bit_depth(bits=1), defences.median(size=3)]
    score = defences.disagreement(defences.views(model, squeezers)(X, key))
    plain = np.asarray(jax.nn.softmax(model(X)))
    apart = [np.abs(plain - jax.nn.softmax(model(squeeze(X, None)))).sum(-1) for squeeze in squeezers]
    np.testing.assert_allclose(score, np.max(apart, 0), atol=1e-6)
    with pytest.raises(KnobError, match="squeezers: must name"):
        defences.views(model, [])


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.99])
def test_threshold_rejects_no_more_than_its_rate(rate):
    scores = np.random.default_rng(1).uniform(size=200)
    rejected = np.mean(scores > defences.threshold_at(scores, false_positive_rate=rate))
    assert rate - 1 / 200 < rejected <= rate + 1e-9


def test_rejecting_adds_a_class_that_wins_above_the_threshold(key):
    squeezers = [defences.bit_depth(bits=1)]
    score = np.asarray(defences.disagreement(defences.views(model, squeezers)(X, key)))
    threshold = float(np.median(score))
    logits = defences.rejecting(model, squeezers, threshold=threshold)(X, key)
    assert logits.shape == (4, 4) and 0 < np.sum(score > threshold) < 4
    expected = np.where(score > threshold, 3, np.argmax(model(X), -1))
    np.testing.assert_array_equal(np.argmax(logits, -1), expected)
    y = (jnp.argmax(model(X), -1) + 1) % 3
    np.testing.assert_array_equal(attacks.undetected_margin(logits, y) > 0, score <= threshold)
