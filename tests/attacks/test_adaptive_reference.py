"""Masked defences of a trained MNIST net at Linf 0.1, against the official AutoAttack on the same images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.defences import defended, noise
from robustgen.models.sequential import sequential
from robustgen.models.weights import load_weights

N = 40
PGD = {"step_size": 0.01, "num_steps": 30}


@pytest.fixture
def case(shared):
    """(net, x, y, official: name of defence and attack -> robust [N] bool)."""
    folder = shared / "reference" / "attacks"
    record, official = json.loads((folder / "std.json").read_text()), np.load(folder / "masked_defenses_flags.npz")
    net = sequential(record["layers"], load_weights(folder / "std.npz"), shape=tuple(record["input_shape"]))
    mnist = np.load(folder / "mnist_test_first1000.npz")
    x = jnp.asarray(mnist["image"][:100][..., None] / np.float32(255))
    return net, x, jnp.asarray(mnist["label"][:100], jnp.int32), official


def eighths(x, keys):
    del keys
    return jnp.round(8 * x) / 8


def robust(net, transform, attack, x, y, key):
    """Mean over 4 draws of being right at what `attack` makes of x [N]."""

    @jax.jit
    def run(net, x, y):
        x_adv = attack(net, x, y, key)
        models = [defended(transform)(net)(x_adv, jax.random.fold_in(key, i)) for i in range(4)]
        return jnp.mean(jnp.stack([jnp.argmax(logits, -1) == y for logits in models]), 0)

    return np.asarray(run(net, x, y))


def test_bpda_breaks_what_autoattack_leaves_robust_and_more_than_its_square(case, key):
    """Levels of 1/8: AutoAttack's gradients are zero (99 % robust), its Square attack alone gets through (18 %)."""
    net, x, y, official = case
    pgd = attacks.pgd(threats.linf(0.1), objective=attacks.expected(attacks.cross_entropy),
                      judge=attacks.expected(attacks.margin), **PGD)  # fmt: skip
    held = {
        name: robust(net, eighths, attacks.against(pgd, transform=through, num_samples=1), x, y, key)
        for name, through in (("naive", eighths), ("adaptive", attacks.bpda(eighths)))
    }
    assert np.mean(held["naive"]) > 0.9 and np.mean(official["quant8_fab_t"]) > 0.9
    assert np.mean(held["adaptive"]) <= np.mean(official["quant8_square"])
    assert np.sum((held["adaptive"] > 0) & ~official["quant8_square"]) <= 2


def test_eot_against_noise_is_as_strong_as_transfer_and_the_rand_version(case, key):
    """Official APGD-CE with 20 draws a step leaves 58 %, and counts an example broken when one draw misses it."""
    net, x, y, official = case
    x, y = x[:N], y[:N]
    objective, judge = map(attacks.expected, (attacks.cross_entropy, attacks.margin))
    pgd = attacks.pgd(threats.linf(0.1), objective=objective, judge=judge, step_size=0.02, num_steps=12)
    defence = noise(sigma=0.1)
    adaptive = robust(net, defence, attacks.against(pgd, transform=defence, num_samples=6), x, y, key)
    bare = attacks.pgd(threats.linf(0.1), objective=attacks.cross_entropy, **PGD)
    transferred = robust(net, defence, attacks.transfer(bare, surrogate=net), x, y, key)
    assert np.mean(adaptive) <= np.mean(transferred) + 0.02
    assert np.mean(adaptive) <= np.mean(official["noise0.1_apgd_ce"][:N]) + 0.1
