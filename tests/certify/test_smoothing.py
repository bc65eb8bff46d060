"""Counting votes: against the closed form of linear classifiers, and equal whatever it is run on and interrupted by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robustgen.certify.smoothing import ABSTAIN, certify, count, denoised, plan, predict, sample, smoothing
from robustgen.certify.smoothing.votes import noise
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Net
from robustgen.records import JournalError
from robustgen.spread import example_keys

W = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
W[..., 1] = -W[..., 0]
X = np.random.default_rng(1).uniform(0, 1, (12, 3, 2)).astype(np.float32)
DRAWN = plan(sigma=0.5, num_selection=50, num_samples=2000)


def linear(x):
    """Two classes, logits +-<w, x - 1/2>: g is f itself, and its radius is the distance to the hyperplane."""
    return jnp.einsum("bij,ijk->bk", x - 0.5, jnp.asarray(W))


def distances():
    """Signed distance of X to the hyperplane, positive on class 0's side, float64."""
    w = W[..., 0].astype(np.float64)
    return np.einsum("bij,ij->b", X.astype(np.float64) - 0.5, w) / np.linalg.norm(w)


@functools.cache
def reference():
    return sample(linear, X, DRAWN, seed=0)


def test_counts_are_binomial_with_the_probability_of_the_closed_form():
    votes = reference()
    np.testing.assert_array_equal(votes.selection.sum(-1), 50)
    np.testing.assert_array_equal(votes.estimation.sum(-1), 2000)
    p = stats.norm.cdf(distances() / 0.5)
    score = (votes.estimation[:, 0] - 2000 * p) / np.sqrt(2000 * p * (1 - p))
    assert np.all(np.abs(score) < 4) and 1 < np.sum(score**2) < 35  # chi squared with 12 degrees, 0.999 within


def test_certified_radii_are_below_the_true_ones_and_close():
    """n = 20 000: at worst the bound gives away what its own standard error does."""
    drawn = plan(sigma=0.5, num_selection=50, num_samples=20_000)
    found = certify(sample(linear, X, drawn, seed=1), drawn, alpha=0.001)
    true = np.abs(distances())
    decided = found.prediction != ABSTAIN
    assert decided.sum() >= 10
    np.testing.assert_array_equal(found.prediction[decided], (distances() < 0)[decided])
    assert np.all(found.radius <= true)
    p = stats.norm.cdf(true / 0.5)
    lost = 7 * 0.5 * np.sqrt(p * (1 - p) / 20_000) / stats.norm.pdf(true / 0.5)  # delta method, 3.1 for alpha + 4
    assert np.all((found.radius >= true - lost)[decided])  # elsewhere 50 samples may have selected the other class


def test_predict_of_a_linear_classifier_is_its_own_prediction():
    drawn = plan(sigma=0.5, num_selection=0, num_samples=2000)
    found = predict(sample(linear, X, drawn, seed=0), alpha=0.001)
    assert set(found[found != ABSTAIN] - (distances() < 0)[found != ABSTAIN]) == {0} and np.sum(found == ABSTAIN) < 3


@pytest.mark.parametrize(
    "how",
    [{"batch_size": 64}, {"stretch": 300}, {"stretch": 77, "batch_size": 32}, {"devices": 1}, {"devices": 5}],
    ids=str,
)
def test_counts_do_not_depend_on_how_they_are_computed(how):
    if "devices" in how:
        how = {"devices": jax.devices()[: how["devices"]]}
    votes = sample(linear, X, DRAWN, seed=0, **how)
    np.testing.assert_array_equal(votes.selection, reference().selection)
    np.testing.assert_array_equal(votes.estimation, reference().estimation)


def test_counts_go_by_the_example_and_not_by_its_place():
    rows = np.asarray([7, 2, 11])
    votes = sample(linear, X[rows], DRAWN, seed=0, index=rows)
    np.testing.assert_array_equal(votes.estimation, reference().estimation[rows])
    moved = sample(linear, X[rows], DRAWN, seed=0)
    other = sample(linear, X[rows], DRAWN, seed=1, index=rows)
    for different in (moved, other):
        assert np.any(different.estimation != votes.estimation)


def test_a_longer_run_begins_with_the_samples_of_a_shorter_one(key):
    x, numbers = jnp.asarray(X[0]), jnp.arange(100)
    drawn = noise(key, numbers, x)
    np.testing.assert_array_equal(noise(key, numbers[40:50], x), drawn[40:50])
    assert stats.kstest(np.ravel(noise(key, jnp.arange(5000), x)), "norm").pvalue > 1e-3
    flat = np.asarray(drawn).reshape(100, -1)
    assert len(np.unique(flat)) > 0.99 * flat.size  # no sample repeats another


def test_samples_that_are_not_finite_vote_for_nobody():
    def broken(x):
        return jnp.where(x[:, :1, 0] > 0.5, jnp.nan, jnp.asarray([[1.0, 0.0]]))

    votes = sample(broken, X[:1] * 0 + 0.5, DRAWN, seed=0)
    assert votes.estimation[0, 1] == 0 and 850 < votes.estimation[0, 0] < 1150
    assert certify(votes, DRAWN, alpha=0.001).prediction == [ABSTAIN]


class Killed(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("num_devices", [1, 5])
def test_a_killed_run_goes_on_to_equal_counts(tmp_path, num_devices):
    path, devices, seen = tmp_path / "votes.journal", jax.devices()[:num_devices], []

    def dies(done, total):
        seen.append(done)
        if len(seen) % 3 == 0:
            raise Killed

    run = functools.partial(sample, linear, X, DRAWN, seed=0, stretch=500, devices=devices, journal=path)
    for attempt in range(30):
        try:
            votes = run(progress=dies)
            break
        except Killed:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) - attempt % 40])  # and the last record is torn
    assert attempt > 2 and seen[-1] == 12 * 2050
    np.testing.assert_array_equal(votes.selection, reference().selection)
    np.testing.assert_array_equal(votes.estimation, reference().estimation)
    run(progress=lambda done, total: pytest.fail("everything was in the journal"))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 1}, "seed"), ({"plan": DRAWN._replace(sigma=0.25)}, "sigma"), ({"net": lambda x: -linear(x)}, "net")],
    ids=["seed", "sigma", "net"],
)
def test_the_journal_of_other_work_is_refused(tmp_path, change, word):
    work = {"net": linear, "x": X[:2], "plan": plan(sigma=0.5, num_selection=5, num_samples=20), "seed": 0}
    sample(**work, journal=tmp_path / "votes")
    with pytest.raises(JournalError, match=f"of another smoothing.*{word}"):
        sample(**(work | change), journal=tmp_path / "votes")


def certifier(eps, num_samples=2000):
    return smoothing(eps=eps, sigma=0.5, num_selection=50, num_samples=num_samples, alpha=0.001, batch_size=512)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_as_a_certifier_it_says_what_the_host_says(eps, key):
    """Jitted and eager; certificates are rounded towards zero, never beyond those in float64."""
    y = jnp.asarray(np.arange(12) % 2, jnp.int32)
    keys = example_keys(key, 12)
    found = certifier(eps)(linear, X, y, keys)
    compiled = jax.jit(lambda x, y, keys: certifier(eps)(linear, x, y, keys))(X, y, keys)
    for one, other in zip(found, compiled, strict=True):
        np.testing.assert_array_equal(one, other)
    one = jax.jit(lambda x, key: count(linear, x, key, DRAWN, start=0, stop=2050, batch_size=512))
    votes = [one(x, k) for x, k in zip(X, keys, strict=True)]
    host = certify(jax.tree.map(lambda *rows: np.stack(rows), *votes), DRAWN, alpha=0.001)
    expected = np.where(host.prediction == y, host.radius, 0)
    assert np.all(np.asarray(found.radius, np.float64) <= expected)
    np.testing.assert_allclose(found.radius, expected, rtol=2e-7)
    wrong = (host.prediction != y) & (host.prediction != ABSTAIN)
    status = np.where(wrong, FALSIFIED, np.where(expected > eps, VERIFIED, UNKNOWN))
    np.testing.assert_array_equal(found.status, status)
    assert {VERIFIED, FALSIFIED} <= set(status.tolist())


def test_no_point_of_the_ball_contradicts_a_certificate(key):
    """The margin of g at the nearest point of the hyperplane's side, in closed form, is above every margin_lower."""
    y = jnp.asarray(distances() < 0, jnp.int32)
    for eps in (0.0, 0.1, 0.3):
        found = certifier(eps)(linear, X, y, key)
        margin = 2 * stats.norm.cdf((np.abs(distances()) - eps) / 0.5) - 1
        assert np.all(found.margin_lower <= margin)
        assert np.all(np.abs(distances())[np.asarray(found.status) == VERIFIED] > eps)
        assert np.all(np.asarray(found.status) != FALSIFIED)


def test_vmapped_over_nets_it_is_each_net(key):
    scales = jnp.asarray([1.0, -1.0])
    y = jnp.asarray(distances() < 0, jnp.int32)[:4]
    one = lambda s: certifier(0.0, 500)(lambda x: s * linear(x), jnp.asarray(X[:4]), y, key)  # noqa: E731
    both = jax.jit(jax.vmap(one))(scales)
    for i in range(2):
        np.testing.assert_array_equal(both.radius[i], one(scales[i]).radius)


def test_denoised_is_the_classifier_after_the_denoiser():
    """A denoiser that removes all noise along w makes every vote the same; both parts are leaves of a pytree."""
    clean = Net({"x": jnp.asarray(X[0])}, {}, lambda v, x, train: jnp.broadcast_to(v["params"]["x"], x.shape))
    composed = denoised(clean, linear)
    assert len(jax.tree.leaves(composed)) == 1
    np.testing.assert_allclose(composed(jnp.asarray(X)), np.repeat(linear(X[:1]), 12, 0), rtol=1e-6)
    votes = sample(composed, X[:2], plan(sigma=0.5, num_selection=5, num_samples=40), seed=0)
    np.testing.assert_array_equal(votes.estimation.max(-1), 40)
