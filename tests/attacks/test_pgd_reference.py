"""PGD without a random start on a trained MNIST net, example by example against torchattacks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.attacks import starts
from robustgen.models.sequential import sequential
from robustgen.models.weights import load_weights

EPS, N = 0.1, 500


@pytest.fixture
def case(shared):
    """(net, x, y, flags: name -> robust [N] bool)."""
    folder = shared / "reference" / "attacks"
    record, flags = json.loads((folder / "std.json").read_text()), np.load(folder / "pgd_std_flags.npz")
    net = sequential(record["layers"], load_weights(folder / "std.npz"), shape=tuple(record["input_shape"]))
    mnist = np.load(folder / "mnist_test_first1000.npz")
    x = jnp.asarray(mnist["image"][:N][..., None] / np.float32(255))
    return net, x, jnp.asarray(mnist["label"][:N], jnp.int32), flags


@pytest.mark.parametrize("num_steps", [20, 40])
def test_the_same_examples_fall_as_to_torchattacks(num_steps, case, key):
    """Steps of 2.5 eps / num_steps; with half of that 21 and 23 of the 500 outcomes are others, with twice 6 and 5."""
    net, x, y, flags = case
    attack = attacks.pgd(
        threats.linf(EPS), objective=attacks.cross_entropy, step_size=2.5 * EPS / num_steps, num_steps=num_steps,
        start=starts.zero,
    )  # fmt: skip
    robust = jax.jit(lambda net, x, y: jnp.argmax(net(attack(net, x, y, key)), -1) == y)(net, x, y)
    assert np.sum(np.asarray(robust) != flags[f"std_eps0.1_torchattacks_nors_{num_steps}"]) <= 1
