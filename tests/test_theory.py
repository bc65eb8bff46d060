"""The whole pipeline against a theorem: attack, loss, optimizer and training loop must reach a closed form together.

Two Gaussians N(+-mu, sigma^2 I), an adversary of radius eps: for linf the robust linear classifier is w ~ soft(mu, eps)
with robust accuracy Phi(|soft(mu, eps)| / sigma) and clean accuracy Phi(<soft, mu> / (sigma |soft|)); for l2 it is
w ~ mu with Phi((|mu| - eps) / sigma). Bhagoji et al. 2019 (arXiv 1909.12272); Dan et al. 2020
(arXiv 2006.16384).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustgen import attacks, losses, optim, threats, train
from robustgen.core import Batch, Stream
from robustgen.losses.standard import accuracy
from robustgen.models import init
from robustgen.schedules import ramp

MU, SIGMA = np.linspace(0.0, 1.0, 12), 1.0
STEPS, BATCH = 1500, 1000


class Linear(nn.Module):
    """Two classes, one direction: logits (-s, s) / 2 with s = <w, x>."""

    @nn.compact
    def __call__(self, x, train):
        score = nn.Dense(1, use_bias=False)(x)
        return jnp.concatenate([-score, score], 1) / 2


def draw(key, num):
    label_key, noise_key = jax.random.split(key)
    y = jax.random.bernoulli(label_key, shape=(num,)).astype(jnp.int32)
    noise = SIGMA * jax.random.normal(noise_key, (num, len(MU)))
    return Batch((2 * y[:, None] - 1) * jnp.asarray(MU, jnp.float32) + noise, y)


STREAM = Stream(lambda key, step: None, lambda carry, key, step: (draw(jax.random.fold_in(key, step), BATCH), carry))


def trained(loss):
    """The weights, unit length, after training on fresh examples with a learning rate that falls to zero."""
    tx = optim.sgd(
        learning_rate=ramp(1.0, 0.0, begin=0.2, length=0.8).over(STEPS), momentum=0.9, weight_decay=0.0, nesterov=True
    )
    model = Linear()
    learner = train.Learner(model.apply, lambda step: loss, tx, ema_decay=0.99)
    state = train.init(learner, init(model, MU.shape, jax.random.key(0)), jax.random.key(1))
    advance = jax.jit(functools.partial(train.chunk, learner, STREAM), static_argnames="length", donate_argnums=0)
    spans = train.fit(
        lambda state, length: advance(state, length=length),
        state,
        num_steps=STEPS,
        span=500,
        guard=train.stop_if_not_finite,
    )
    *_, last = spans
    return train.final_net(last.state, model.apply)


def accuracies(net, attack):
    """(clean, robust) on 100 000 fresh examples."""
    x, y = draw(jax.random.key(7), 100_000)
    x_adv = jax.jit(lambda x: attack(net, x, y, jax.random.key(8)))(x)
    return [float(accuracy(net(z), y)) for z in (x, x_adv)]


def soft(eps):
    return np.maximum(MU - eps, 0)


CASES = {
    "linf, eps 0.4": (threats.linf, 0.4, soft(0.4), np.linalg.norm(soft(0.4)) / SIGMA),
    "linf, eps 0": (threats.linf, 0.0, MU, np.linalg.norm(MU) / SIGMA),
    "l2, eps 1": (threats.l2, 1.0, MU, (np.linalg.norm(MU) - 1.0) / SIGMA),
}


@pytest.mark.parametrize("name", CASES)
def test_adversarial_logistic_regression_reaches_the_closed_form(name):
    threat_at, eps, direction, robust_score = CASES[name]
    threat = threat_at(eps, clip=None)
    attack = attacks.pgd(threat, objective=attacks.cross_entropy, step_size=max(4 * eps, 0.1), num_steps=3)
    net = trained(losses.pgd_at(attack))
    w = np.asarray(net.params["Dense_0"]["kernel"][:, 0])
    assert w @ direction / (np.linalg.norm(w) * np.linalg.norm(direction)) > 0.999
    expected_clean = scipy.stats.norm.cdf(direction @ MU / (SIGMA * np.linalg.norm(direction)))
    clean, robust = accuracies(net, attack)
    np.testing.assert_allclose([clean, robust], [expected_clean, scipy.stats.norm.cdf(robust_score)], atol=0.005)


def test_standard_training_is_less_robust_and_more_accurate():
    """The trade-off itself, in numbers of the closed form: w ~ mu has robust score (<mu, mu> - eps |mu|_1) / |mu|."""
    attack = attacks.fgsm(threats.linf(0.4, clip=None), objective=attacks.cross_entropy, step_size=0.4)
    clean, robust = accuracies(trained(losses.standard()), attack)
    norm = np.linalg.norm(MU)
    expected = scipy.stats.norm.cdf([norm / SIGMA, (norm**2 - 0.4 * np.sum(MU)) / (SIGMA * norm)])
    np.testing.assert_allclose([clean, robust], expected, atol=0.006)
    best = scipy.stats.norm.cdf(np.linalg.norm(soft(0.4)) / SIGMA)
    assert robust < best - 0.02
