"""Losses and their gradients against float64 NumPy, written from the papers, on a net whose derivative is known.

Gradients are checked by central differences of the oracle, so no derivative is taken by the code under test twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, losses, threats
from robustgen.attacks import starts
from robustgen.core import Batch, Net, batch_forward, eval_forward, train_forward
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
PARAMS = {"w": DRAW.standard_normal((4, 5)), "v": DRAW.standard_normal((5, 3))}
STATE = {"batch_stats": {"mean": 0.1 * DRAW.standard_normal(5)}}
X, SHIFT = DRAW.uniform(0.3, 0.7, (6, 4)), 0.1 * DRAW.standard_normal((6, 4))
Y = np.asarray([0, 1, 2, 0, 1, 2])


def apply_fn(variables, x, train, mutable=None, rngs=None):
    """tanh net that subtracts the mean of its hidden layer: that of the batch, or the running one."""
    hidden = x @ variables["params"]["w"]
    mean = hidden.mean(0) if train else variables["batch_stats"]["mean"]
    logits = jnp.tanh(hidden - mean) @ variables["params"]["v"]
    running = 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean
    return logits if mutable is None else (logits, {"batch_stats": {"mean": running}})


def oracle_logits(params, x, train):
    hidden = x @ params["w"]
    return np.tanh(hidden - (hidden.mean(0) if train else STATE["batch_stats"]["mean"])) @ params["v"]


def log_softmax(z):
    return z - np.log(np.sum(np.exp(z - z.max(-1, keepdims=True)), -1, keepdims=True)) - z.max(-1, keepdims=True)


def cross_entropy(z):
    return -np.mean(log_softmax(z)[np.arange(6), Y])


def kl(p, q):
    """KL(softmax(p) || softmax(q)), summed over classes, mean over the batch."""
    return np.sum(np.exp(log_softmax(p)) * (log_softmax(p) - log_softmax(q))) / len(p)


def net(dtype):
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)  # noqa: E731
    return Net(cast(PARAMS), cast(STATE), apply_fn), Batch(jnp.asarray(X, dtype), jnp.asarray(Y, jnp.int32))


def shifted(logits_fn, x, target, key):
    """An attack that is known: the same step, whatever the model."""
    return x + jnp.asarray(SHIFT, x.dtype)


def numerical_gradient(value):
    """d value / d params by central differences in float64."""
    gradient = {name: np.zeros_like(p) for name, p in PARAMS.items()}
    for name, p in PARAMS.items():
        for i in np.ndindex(p.shape):
            ends = [value({**PARAMS, name: p + h * (np.indices(p.shape).T == i).all(-1).T}) for h in (1e-5, -1e-5)]
            gradient[name][i] = (ends[0] - ends[1]) / 2e-5
    return gradient


def trades_oracle(beta, train):
    def value(params):
        clean, adv = oracle_logits(params, X, train), oracle_logits(params, X + SHIFT, train)
        return cross_entropy(clean) + beta * kl(clean, adv)

    return value


ORACLES = {
    "standard": (losses.standard(), lambda p: cross_entropy(oracle_logits(p, X, True))),
    "standard, eval": (losses.standard(forward=eval_forward), lambda p: cross_entropy(oracle_logits(p, X, False))),
    "pgd_at": (losses.pgd_at(shifted), lambda p: cross_entropy(oracle_logits(p, X + SHIFT, True))),
    "trades": (losses.trades(shifted, beta=6.0), trades_oracle(6.0, True)),
    "trades, eval": (
        losses.trades(shifted, beta=2.0, clean_forward=eval_forward, adv_forward=eval_forward),
        trades_oracle(2.0, False),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_value_and_gradient_in_double_precision(name, key, x64):
    loss, oracle = ORACLES[name]
    model, batch = net(jnp.float64)
    (value, _), grads = jax.value_and_grad(loss, has_aux=True)(model, batch, key)
    np.testing.assert_allclose(value, oracle(PARAMS), rtol=1e-12)
    for leaf, expected in numerical_gradient(oracle).items():
        np.testing.assert_allclose(grads.params[leaf], expected, atol=1e-8)


@pytest.mark.parametrize("name", ORACLES)
def test_value_and_gradient_in_single_precision(name, key):
    loss, oracle = ORACLES[name]
    model, batch = net(jnp.float32)
    (value, _), grads = jax.value_and_grad(loss, has_aux=True)(model, batch, key)
    np.testing.assert_allclose(value, oracle(PARAMS), rtol=1e-6)
    for leaf, expected in numerical_gradient(oracle).items():
        np.testing.assert_allclose(grads.params[leaf], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pgd_at", "trades"])
def test_against_torch(name, key, x64):
    """The lines of the official code: KLDivLoss(reduction='sum') / batch size, gradients through both arguments."""
    torch = pytest.importorskip("torch", reason="the originals to compare with are written in it")
    functional = torch.nn.functional
    params = {leaf: torch.tensor(p, requires_grad=True) for leaf, p in PARAMS.items()}

    def logits(x):
        hidden = torch.tensor(x) @ params["w"]
        return torch.tanh(hidden - hidden.mean(0)) @ params["v"]

    clean, adv, y = logits(X), logits(X + SHIFT), torch.tensor(Y)
    if name == "trades":
        kl_div = torch.nn.KLDivLoss(reduction="sum")(functional.log_softmax(adv, 1), functional.softmax(clean, 1))
        expected = functional.cross_entropy(clean, y) + 6.0 * kl_div / len(X)
    else:
        expected = functional.cross_entropy(adv, y)
    expected.backward()
    (value, _), grads = jax.value_and_grad(ORACLES[name][0], has_aux=True)(*net(jnp.float64), key)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-12)
    for leaf, p in params.items():
        np.testing.assert_allclose(grads.params[leaf], p.grad.numpy(), atol=1e-12)


def running(*seen):
    """The running mean after training-mode passes over these inputs, in this order."""
    mean = STATE["batch_stats"]["mean"]
    for x in seen:
        mean = 0.9 * mean + 0.1 * (x @ PARAMS["w"]).mean(0)
    return mean


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (losses.standard(), [X]),
        (losses.standard(forward=batch_forward), []),
        (losses.pgd_at(shifted), [X + SHIFT]),
        (losses.pgd_at(shifted, attack_forward=train_forward), [X + SHIFT]),
        (losses.trades(shifted, beta=6.0), [X, X + SHIFT]),
        (losses.trades(shifted, beta=6.0, clean_forward=batch_forward), [X + SHIFT]),
        (losses.trades(shifted, beta=6.0, adv_forward=eval_forward), [X]),
    ],
)
def test_running_statistics_see_what_the_policy_says_and_never_the_attack(loss, seen, key, x64):
    _, aux = loss(*net(jnp.float64), key)
    np.testing.assert_allclose(aux.state["batch_stats"]["mean"], running(*seen), rtol=1e-12)


@pytest.mark.parametrize(
    "loss_of", [lambda attack, f: losses.pgd_at(attack, attack_forward=f),
                lambda attack, f: losses.trades(attack, beta=1.0, attack_forward=f)], ids=["pgd_at", "trades"]
)  # fmt: skip
@pytest.mark.parametrize(("forward", "train"), [(eval_forward, False), (batch_forward, True)])
def test_what_the_attack_is_handed(loss_of, forward, train, key, x64):
    """The net in the mode that was asked for; labels, or for TRADES the clean logits in that mode, computed once."""
    handed = []

    def spy(logits_fn, x, target, key):
        handed.append((logits_fn(x + SHIFT), target))
        return x

    loss_of(spy, forward)(*net(jnp.float64), key)
    ((logits, target),) = handed
    np.testing.assert_allclose(logits, oracle_logits(PARAMS, X + SHIFT, train), atol=1e-12)
    np.testing.assert_allclose(target, Y if target.ndim == 1 else oracle_logits(PARAMS, X, train), atol=1e-12)


def test_no_gradient_flows_through_the_attack(key, x64):
    """An attack that differentiably depends on the parameters counts as constant."""

    def leaky(logits_fn, x, target, key):
        return x + 0.1 * logits_fn(x)[:, :1]

    model, batch = net(jnp.float64)
    x_adv = X + 0.1 * oracle_logits(PARAMS, X, False)[:, :1]
    (value, _), grads = jax.value_and_grad(losses.pgd_at(leaky), has_aux=True)(model, batch, key)
    fixed = losses.pgd_at(lambda *_: jnp.asarray(x_adv))
    np.testing.assert_allclose(value, fixed(model, batch, key)[0], rtol=1e-12)
    expected = jax.grad(fixed, has_aux=True)(model, batch, key)[0].params
    np.testing.assert_allclose(grads.params["w"], expected["w"], rtol=1e-10)


def test_kl_is_stationary_at_x_and_not_at_the_gaussian_start(key, x64):
    """Why TRADES starts 0.001 away: at x itself the gradient of its objective is zero."""
    model, batch = net(jnp.float64)
    climb = jax.grad(lambda z: jnp.sum(attacks.kl(model(z), model(batch.x))))
    begin = starts.gaussian(scale=0.001)(threats.linf(0.1), batch.x, example_keys(key, 6))
    assert np.max(np.abs(climb(batch.x))) < 1e-12 < 1e-4 < np.min(np.max(np.abs(climb(begin)), 1))
