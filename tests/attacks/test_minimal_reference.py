"""Minimal-norm attacks on a trained MNIST net against what official AutoAttack found within an L2 radius of 1."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import minimal
from robustgen.attacks.minimal import distances, norms
from robustgen.evaluation.distances import security_curve
from robustgen.models.sequential import sequential
from robustgen.models.weights import load_weights

N = 100
FMN = {"num_steps": 60, "step_size": 1.0, "final_step_size": 0.01, "gamma": 0.05, "final_gamma": 0.001}
DDN = {"num_steps": 60, "step_size": 1.0, "final_step_size": 0.01, "init_eps": 1.0, "gamma": 0.05, "levels": None}


@pytest.fixture
def case(shared):
    """(net, x, y, robust [N] bool by AutoAttack standard, L2 1.0)."""
    folder = shared / "reference" / "attacks"
    record, official = json.loads((folder / "std.json").read_text()), np.load(folder / "aa_std_L2_1_n300_s0_bs250.npz")
    net = sequential(record["layers"], load_weights(folder / "std.npz"), shape=tuple(record["input_shape"]))
    mnist, rows = np.load(folder / "mnist_test_first1000.npz"), official["indices"][:N]
    x = jnp.asarray(mnist["image"][rows][..., None] / np.float32(255))
    return net, x, jnp.asarray(mnist["label"][rows], jnp.int32), official["square"][:N]


ATTACKS = {"fmn": minimal.fmn(norms.L2, **FMN, overshoot=0.05), "ddn": minimal.ddn(**DDN)}


@pytest.mark.parametrize(("method", "points"), [("fmn", 0.04), ("ddn", 0.02)])
def test_as_many_are_broken_within_a_radius_as_by_autoattack(method, points, case, key):
    """They know nothing of the radius. FMN's margin has worse local optima than DDN's cross-entropy: more steps, other
    step sizes and overshoots leave it 3 points above AutoAttack."""
    net, x, y, robust = case
    attack = ATTACKS[method]
    x_adv = jax.jit(lambda net, x, y: attack(net, x, y, key))(net, x, y)
    found = np.asarray(jax.jit(lambda net, z: distances(norms.L2.size, net, x, y, z))(net, x_adv))
    accuracy = security_curve(found, [1.0])[0]
    assert abs(accuracy.value - np.mean(robust)) <= points, (accuracy, np.mean(robust))
    assert np.sum((found > 1.0) != robust) <= 100 * points + 1
    assert np.all(np.isfinite(found)) and np.all((x_adv >= 0) & (x_adv <= 1))
