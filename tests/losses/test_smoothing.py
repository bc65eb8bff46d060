"""Training losses for smoothing against float64 NumPy written from the papers, gradients by central differences.

The oracles are handed the noisy inputs that the net saw, so that they share nothing with the code but these.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robustgen import attacks, threats
from robustgen.attacks import starts
from robustgen.core import Batch, Net, eval_forward, train_forward
from robustgen.losses import smoothing
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
PARAMS = {"w": DRAW.standard_normal((4, 5)), "v": DRAW.standard_normal((5, 3))}
STATE = {"batch_stats": {"mean": 0.1 * DRAW.standard_normal(5)}}
X, Y, SHIFT = DRAW.uniform(0.3, 0.7, (6, 4)), np.asarray([0, 1, 2, 0, 1, 2]), 0.1 * DRAW.standard_normal((6, 4))
SIGMA, M = 0.4, 3


def apply_fn(variables, x, train, mutable=None, rngs=None):
    """tanh net that subtracts the mean of its hidden layer: that of the batch, or the running one."""
    hidden = x @ variables["params"]["w"]
    mean = hidden.mean(0) if train else variables["batch_stats"]["mean"]
    logits = jnp.tanh(hidden - mean) @ variables["params"]["v"]
    running = 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean
    return logits if mutable is None else (logits, {"batch_stats": {"mean": running}})


def oracle_probabilities(params, copies, train, inverse_temperature=1.0):
    """softmax of the net [6, m, 3] at `copies` [6, m, 4]; batch statistics are over all copies."""
    hidden = copies.reshape(-1, 4) @ params["w"]
    z = np.tanh(hidden - (hidden.mean(0) if train else STATE["batch_stats"]["mean"])) @ params["v"]
    e = np.exp(inverse_temperature * (z - z.max(1, keepdims=True)))
    return (e / e.sum(1, keepdims=True)).reshape(*copies.shape[:2], 3)


def own(p):
    """The probability of each example's label."""
    return np.take_along_axis(p, Y.reshape((6,) + (1,) * (p.ndim - 1)), -1)[..., 0]


def model(dtype=jnp.float64):
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)  # noqa: E731
    return Net(cast(PARAMS), cast(STATE), apply_fn), Batch(jnp.asarray(X, dtype), jnp.asarray(Y, jnp.int32))


class Spy:
    """A forward policy that keeps the inputs it was called with."""

    def __init__(self, forward):
        self.forward, self.seen = forward, []

    def __call__(self, net, x, key):
        self.seen.append(x)
        return self.forward(net, x, key)


def shifted(logits_fn, x, target, key):
    """An attack that is known."""
    return x + jnp.asarray(SHIFT, x.dtype)


def gaussian_oracle(params, copies, train):
    return -np.mean(np.log(own(oracle_probabilities(params, copies, train))))


def macer_oracle(params, copies, train, weight=12.0, hinge=1.0, beta=2.0):
    """Algorithm 1, example by example."""
    soft, sharp = (oracle_probabilities(params, copies, train, b).mean(1) for b in (1.0, beta))
    total = 0.0
    for label, p, q in zip(Y, soft, sharp, strict=True):
        total -= np.log(p[label])
        if np.argmax(q) == label:
            xi = stats.norm.ppf(q[label]) - stats.norm.ppf(max(np.delete(q, label)))
            total += weight * SIGMA / 2 * max(hinge - xi, 0)
    return total / 6


def consistency_oracle(params, copies, train, weight=10.0, eta=0.5):
    p = oracle_probabilities(params, copies, train)
    mean = p.mean(1)
    kl = np.mean([stats.entropy(mean[i], p[i, j]) for i in range(6) for j in range(p.shape[1])])
    entropy = np.mean([stats.entropy(row) for row in mean])
    return -np.mean(np.log(own(p))) + weight * kl + eta * entropy


MACER = functools.partial(
    smoothing.macer, sigma=SIGMA, num_noise=M, weight=12.0, hinge=1.0, inverse_temperature=2.0
)
CASES = {
    "gaussian": (1, 0, lambda f: smoothing.gaussian(sigma=SIGMA, forward=f), gaussian_oracle),
    "smoothadv": (
        M, SHIFT, lambda f: smoothing.smoothadv(shifted, sigma=SIGMA, num_noise=M, adv_forward=f), gaussian_oracle
    ),
    "macer": (M, 0, lambda f: MACER(forward=f), macer_oracle),
    "consistency": (
        M, 0, lambda f: smoothing.consistency(sigma=SIGMA, num_noise=M, weight=10.0, eta=0.5, forward=f),
        consistency_oracle,
    ),
}  # fmt: skip


def numerical_gradient(value):
    """d value / d params by central differences in float64."""
    gradient = {name: np.zeros_like(p) for name, p in PARAMS.items()}
    for name, p in PARAMS.items():
        for i in np.ndindex(p.shape):
            ends = [value({**PARAMS, name: p + h * (np.indices(p.shape).T == i).all(-1).T}) for h in (1e-5, -1e-5)]
            gradient[name][i] = (ends[0] - ends[1]) / 2e-5
    return gradient


def spied(make, forward, key, dtype=jnp.float64):
    """(value, aux, gradient, the noisy copies [6, m, 4])."""
    net, batch = model(dtype)

    def loss(net):
        spy = Spy(forward)
        value, aux = make(spy)(net, batch, key)
        return value, (aux, *spy.seen)

    (value, (aux, copies)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(net)
    return value, aux, grads.params, np.asarray(copies, np.float64).reshape(6, -1, 4)


@pytest.mark.parametrize(("name", "forward"), [*((name, train_forward) for name in CASES), ("macer", eval_forward)])
def test_value_and_gradient_in_double_precision(name, forward, key, x64):
    train, (num_noise, shift, make, oracle) = forward is train_forward, CASES[name]
    value, aux, grads, copies = spied(make, forward, key)
    assert copies.shape == (6, num_noise, 4)
    np.testing.assert_allclose(value, oracle(PARAMS, copies, train), rtol=1e-10)
    for leaf, expected in numerical_gradient(lambda p: oracle(p, copies, train)).items():
        np.testing.assert_allclose(grads[leaf], expected, atol=2e-7)
    mean = oracle_probabilities(PARAMS, copies, train)
    np.testing.assert_allclose(aux.metrics["noisy_accuracy"], np.mean(mean.argmax(-1) == Y[:, None]), rtol=1e-6)
    np.testing.assert_array_equal(np.abs(copies - X[:, None] - np.broadcast_to(shift, X.shape)[:, None]) > 0, True)
    moved = 0.9 * STATE["batch_stats"]["mean"] + 0.1 * (copies.reshape(-1, 4) @ PARAMS["w"]).mean(0)
    running = moved if train else STATE["batch_stats"]["mean"]
    np.testing.assert_allclose(aux.state["batch_stats"]["mean"], running, rtol=1e-9)


@pytest.mark.parametrize("name", ["macer", "consistency"])
def test_value_and_gradient_in_single_precision(name, key):
    _, _, make, oracle = CASES[name]
    value, _, grads, copies = spied(make, train_forward, key, jnp.float32)
    np.testing.assert_allclose(value, oracle(PARAMS, copies, True), rtol=1e-5)
    for leaf, expected in numerical_gradient(lambda p: oracle(p, copies, True)).items():
        np.testing.assert_allclose(grads[leaf], expected, atol=2e-5)


def test_macer_is_tested_on_every_kind_of_example(key, x64):
    """Wrong, within the hinge, beyond it: else the oracle above would not be one."""
    _, _, _, copies = spied(CASES["macer"][2], train_forward, key)
    sharp = oracle_probabilities(PARAMS, copies, True, 2.0).mean(1)
    top = np.sort(sharp)[:, ::-1]
    xi, right = stats.norm.ppf(top[:, 0]) - stats.norm.ppf(top[:, 1]), sharp.argmax(-1) == Y
    assert (~right).any() and (right & (xi < 1)).any() and (right & (xi > 1)).any()


def test_macer_where_votes_are_unanimous_has_finite_gradients(key):
    """Probabilities 1 and 0 in float32, whose Phi^-1 is infinite, are beyond the hinge and teach nothing."""
    net, batch = model(jnp.float32)
    sure = Net({**net.params, "v": 1e4 * net.params["v"]}, net.state, apply_fn)
    loss = smoothing.macer(sigma=0.01, num_noise=2, weight=1.0, hinge=8.0, inverse_temperature=16.0)
    (value, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(sure, batch, key)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads.params))
    assert aux.metrics["radius_loss"] == 0


def test_noise_is_gaussian_and_of_each_example(key):
    x, keys = jnp.zeros((500, 4)), example_keys(key, 500)
    drawn = smoothing.gaussian_noise(x, key, SIGMA, 8)
    assert stats.kstest(np.ravel(drawn) / SIGMA, "norm").pvalue > 1e-3
    flat = np.asarray(drawn).reshape(500, -1)
    assert np.max(np.abs(np.corrcoef(flat, rowvar=False) - np.eye(32))) < 0.25  # 500 draws: 5.6 standard errors
    np.testing.assert_array_equal(smoothing.gaussian_noise(x[7:9], keys[7:9], SIGMA, 8), drawn[7:9])


def smoothadv_objective(z, noise):
    """The paper's J: -log of the mean probability of the label over the draws, in evaluation mode."""
    return -np.log(own(oracle_probabilities(PARAMS, z[:, None] + noise, False).mean(1)))


def test_what_smoothadv_attacks_has_the_gradient_of_the_papers_objective(key, x64):
    """By central differences at two points; and the noise there is that of the training pass."""
    points, found, spy = [X, X + SHIFT], [], Spy(train_forward)

    def attack(logits_fn, x, target, key):
        climb = jax.grad(lambda z: jnp.sum(attacks.cross_entropy(logits_fn(z), target)))
        found.extend((logits_fn(jnp.asarray(z)), climb(jnp.asarray(z))) for z in points)
        return shifted(logits_fn, x, target, key)

    net, batch = model()
    smoothing.smoothadv(attack, sigma=SIGMA, num_noise=M, adv_forward=spy)(net, batch, key)
    noise = np.asarray(spy.seen[0]).reshape(6, M, 4) - (X + SHIFT)[:, None]
    for z, (logits, gradient) in zip(points, found, strict=True):
        np.testing.assert_allclose(-own(np.asarray(logits)), smoothadv_objective(z, noise), rtol=1e-10)
        for j in range(4):
            h = 1e-6 * (np.arange(4) == j)
            slope = (smoothadv_objective(z + h, noise) - smoothadv_objective(z - h, noise)) / 2e-6
            np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-6, atol=1e-8)


def test_smoothadv_with_the_published_attack_takes_its_steps(key, x64):
    """Two steps of 2 eps / T along the normalised gradient of J, from x itself, then into ball and box."""
    eps, spy = 0.3, Spy(train_forward)
    published = attacks.pgd(
        threats.l2(eps), objective=attacks.cross_entropy, start=starts.zero, step_size=eps, num_steps=2
    )
    net, batch = model()
    loss = smoothing.smoothadv(published, sigma=SIGMA, num_noise=M, adv_forward=spy)
    loss(net, batch, key)
    noises = smoothing.gaussian_noise(batch.x, jax.random.split(key, 3)[0], SIGMA, M)
    x_adv = (np.asarray(spy.seen[0]).reshape(6, M, 4) - noises).mean(1)
    z = X
    for _ in range(2):
        gradient = np.stack(
            [
                (smoothadv_objective(z + h, noises) - smoothadv_objective(z - h, noises)) / 2e-6
                for h in 1e-6 * np.eye(4)
            ], 1,
        )  # fmt: skip
        z = z + eps * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        z = X + (z - X) * np.minimum(1, eps / np.linalg.norm(z - X, axis=1, keepdims=True))
        assert np.all((z >= 0) & (z <= 1))  # so that the projection is onto the ball alone
    np.testing.assert_allclose(x_adv, z, atol=1e-6)


def test_no_gradient_flows_through_the_attack(key, x64):
    def leaky(logits_fn, x, target, key):
        return x + 0.1 * logits_fn(x)[:, :1]

    net, batch = model()

    def kept(*args):
        seen.append(leaky(*args))
        return seen[0]

    make, seen = functools.partial(smoothing.smoothadv, sigma=SIGMA, num_noise=M), []
    make(kept)(net, batch, key)
    fixed, loss = make(lambda *_: seen[0]), make(leaky)
    expected, found = (jax.grad(one, has_aux=True)(net, batch, key)[0].params for one in (fixed, loss))
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-9)
