"""Four masked defences of a net for MNIST, on which what AutoAttack says is known; and the net itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks
from robustgen.attacks.square import square_linf
from robustgen.core import Net
from robustgen.evaluation.validity import flagged
from robustgen.models.conv import conv2d
from robustgen.validity import Evaluated, square_at, thorough, validity

from .broken import noisy
from .nets import linf_of

COUNT = 50
SQUARE = square_at(square_linf, clip=(0.0, 1.0), num_queries=300)
THOROUGH = thorough(eps=0.1, num_steps=25, num_targets=2)


@pytest.fixture
def reference(shared):
    folder = shared / "reference" / "attacks"
    if not (folder / "masked_defenses.json").is_file():
        pytest.skip("needs the reference runs of AutoAttack in the shared folder")
    return folder


DEFENCES = {  # levels of the input, 0 for all; scale of the logits; whether a softmax follows
    "std": (0.0, 1.0, 0.0), "quant8": (8.0, 1.0, 0.0), "scale1000": (0.0, 1000.0, 0.0), "softmax": (0.0, 1.0, 1.0),
}  # fmt: skip


@pytest.fixture
def defended(reference):
    """defended(name) -> Net; the same function of other numbers, so that the checks are compiled once."""
    weights = {name: jnp.asarray(value) for name, value in np.load(reference / "std.npz").items()}
    return lambda name: Net({**weights, "defence": jnp.asarray(DEFENCES[name])}, {}, apply_fn)


def apply_fn(variables, x, train):
    weights = variables["params"]
    levels, scale, softmax = weights["defence"]
    x = jnp.where(levels > 0, jnp.round(levels * x) / jnp.maximum(levels, 1), x)
    for layer in ("0", "1"):
        x = conv2d(x, weights[f"{layer}_w"], stride=2, padding=((1, 1), (1, 1)))
        x = jax.nn.relu(x + weights[f"{layer}_b"].reshape(1, 1, 1, -1))
    x = jax.nn.relu(x.reshape(len(x), -1) @ weights["2_w"] + weights["2_b"].reshape(1, -1))
    logits = scale * (x @ weights["3_w"] + weights["3_b"].reshape(1, -1))
    return jnp.where(softmax > 0, jax.nn.softmax(logits), logits)


@pytest.fixture
def examples(reference):
    data = np.load(reference / "mnist_test_first1000.npz")
    return data["image"][:COUNT, ..., None].astype(np.float32) / np.float32(255), data["label"][:COUNT]


RAISED = {
    "quant8": {"zero gradients (dlr)", "unavailable gradients", "black-box attack is stronger"},
    "scale1000": {"zero gradients (cross_entropy)"},
    "softmax": {"outputs are probabilities"},
    "std": set(),
}


def found(net, examples, evaluated, black_box_at):
    return set(flagged(validity(
        net, *examples, threat_at=linf_of((0.0, 1.0)), eps=0.1, evaluated=evaluated, black_box_at=black_box_at,
        num_inner=200, key=jax.random.key(0),
    )))  # fmt: skip


@pytest.mark.parametrize("name", RAISED)
def test_masked_defences_are_flagged_and_their_base_is_not(name, defended, examples, reference):
    names = found(defended(name), examples, THOROUGH, SQUARE)
    assert RAISED[name] <= names and bool(names) == bool(RAISED[name])
    assert {*json.loads((reference / "masked_defenses.json").read_text())["results"], "std"} == {*RAISED, "noise0.1"}


def test_noise_is_flagged(defended, examples):
    once = attacks.scaled_pgd(objective=attacks.margin, relative_step=0.2, num_steps=5, num_restarts=1)
    model = noisy(defended("std"))
    assert "randomised outputs" in found(model, examples, Evaluated(once, once, {}), None)
