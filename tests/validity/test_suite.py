"""The whole suite: honest models raise nothing, each broken one what it should."""

import functools

import jax
import jax.numpy as jnp
import pytest

from robustgen import attacks, threats
from robustgen.attacks.square import square_linf
from robustgen.attacks.square_l1 import square_l1
from robustgen.evaluation.validity import flagged
from robustgen.validity import Evaluated, square_at, thorough, thorough_l1, validity

from .broken import defended, noisy, signs
from .nets import EPS, linf_of, split

SQUARE = square_at(square_linf, clip=(0.0, 1.0), num_queries=500)
PGD = functools.partial(attacks.scaled_pgd, relative_step=0.1)
CONFIGS = Evaluated(  # what the digits configs evaluate with, and its record
    PGD(objective=attacks.cross_entropy, num_steps=50, num_restarts=3),
    PGD(objective=attacks.margin, num_steps=100, num_restarts=1),
    {"eps": EPS, "objective": "cross_entropy", "num_steps": 50, "num_restarts": 3},
)


def found(net, examples, evaluated=CONFIGS, *, eps=EPS, black_box_at=SQUARE):
    return validity(
        net, *examples, threat_at=linf_of((0.0, 1.0)), eps=eps, evaluated=evaluated, black_box_at=black_box_at,
        num_inner=200, key=jax.random.key(0),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["standard", "pgd_at", "trades"])
def test_honest_models_raise_nothing(name, honest, examples):
    findings = found(defended(honest(name)), examples)
    assert flagged(findings) == []
    assert len(findings) == len({finding.name for finding in findings}) == 25


def test_a_linear_model_raises_nothing_under_an_attack_that_works(honest, examples):
    """PGD-50x3 on cross-entropy leaves standing a tenth of what it should break, and is flagged for it."""
    assert flagged(found(honest("linear"), examples, thorough(eps=EPS, num_steps=25, num_targets=3))) == []


ZERO = {"zero gradients (cross_entropy)", "zero gradients (dlr)", "unavailable gradients"}
CASES = {
    "masked gradients": ({"hidden_levels": 4.0}, {*ZERO, "black-box attack is stronger", "binarization test"}),
    "temperature": ({"logit_scale": 1000.0}, {"zero gradients (cross_entropy)", "a stronger attack breaks more"}),
    "quantised input": ({"input_levels": 4.0}, {*ZERO, "black-box attack is stronger", "binarization test"}),
    "dropout left on": ({"keep": 0.8}, {"outputs depend on the batch"}),
    "normalised twice": ({"input_scale": 1 / 255}, {"model expects another input range"}),
    "detached branch": ({"detached": 1.0}, {"gradients are not those of the model"}),
}


@pytest.mark.parametrize("name", CASES)
def test_broken_models_raise_what_they_should(name, honest, examples):
    changed, expected = CASES[name]
    assert expected <= set(flagged(found(defended(honest("standard"), **changed), examples)))


def test_noise_at_inference(honest, examples):
    evaluated = Evaluated(*2 * [PGD(objective=attacks.margin, num_steps=5, num_restarts=1)], CONFIGS.settings)
    names = flagged(found(noisy(defended(honest("standard"))), examples, evaluated, black_box_at=None))
    assert {"randomised outputs", "outputs depend on the batch"} <= set(names)


def test_a_model_that_reads_the_label_off_the_attack(honest, examples):
    """Within 1/32 the perturbation can be told from the image. Barely trained, it has errors that the label mends."""
    net = honest("hurried")
    templates = signs(net, *map(jnp.asarray, split("train")))
    names = flagged(found(defended(net, templates, leak=15.0), examples, eps=0.03))
    assert {"label leaking", "gradients are not those of the model"} <= set(names)


def test_inputs_in_bytes_in_a_box_of_shares(honest, examples):
    x, y = examples
    net = defended(honest("standard"), input_scale=1 / 255)
    assert "inputs outside the box" in flagged(found(net, (255 * x, y)))


def test_a_radius_in_shares_of_bytes(honest, examples):
    names = flagged(found(defended(honest("standard")), examples, eps=0.1 / 255))
    assert names == ["radius against the range of inputs"]


def test_an_honest_model_raises_nothing_in_the_l1_ball(honest, examples):
    square = square_at(square_l1, clip=(0.0, 1.0), num_queries=500)
    evaluated = thorough_l1(eps=1.5, clip=(0.0, 1.0), num_steps=100, num_targets=9)
    findings = validity(
        honest("linear"), *examples, threat_at=lambda eps: threats.l1(eps, (0.0, 1.0)), eps=1.5, evaluated=evaluated,
        black_box_at=square, num_inner=200, key=jax.random.key(0),
    )  # fmt: skip
    assert flagged(findings) == []
