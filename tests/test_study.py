"""Sweeps from the command line: what is taken, and what is refused in one line."""

import fiddle as fdl
import numpy as np
import pytest

from robustgen import config, study
from robustgen.config import app
from robustgen.losses import balanced, crown_ibp, l1, mtl_ibp, pgd_at, standard
from robustgen.optim import sgd


@pytest.fixture(scope="module")
def cfg() -> fdl.Config:
    return app.resolve("configs/digits_trades.py")[0]


def test_a_sweep_is_every_combination_with_every_seed(cfg):
    found = study.members(cfg, ["loss.beta=0, 1.5", "loss.attack.threat.eps=8/255"], 2)
    np.testing.assert_array_equal(found.seeds, [0, 1, 0, 1])
    np.testing.assert_array_equal(found.values["loss.beta"], [0, 0, 1.5, 1.5])
    np.testing.assert_array_equal(found.values["loss.attack.threat.eps"], np.full(4, 8 / 255, np.float32))
    alone = study.members(config.override(cfg, ["seed=5"]), [], 3)
    assert alone.seeds.tolist() == [5, 6, 7] and alone.values == {}


def test_schedules_may_be_swept_or_replaced():
    ibp = app.resolve("configs/digits_ibp.py")[0]
    for sweep in ("loss.kappa.end=0.2,0.5", "optimizer.learning_rate=1e-3,1e-2", "loss.threat.eps=0.1,0.2"):
        assert len(study.members(ibp, [sweep], 1).seeds) == 2
    with pytest.raises(config.ConfigError, match="decides what is compiled"):
        study.members(ibp, ["optimizer.learning_rate.boundaries.0=0.1,0.2"], 1)


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("loss.beta=", "needs values"),
        ("loss.beta", "needs values"),
        ("loss.beta=1,", "needs values"),
        ("loss.beta=1,2,1", "1 is listed twice"),
        ("loss.nope=1", "unknown field; did you mean loss.beta?"),
        ("loss.beta=many", "must be a number; got 'many'"),
        ("loss.beta=-1", "must be finite and >= 0; got -1"),
        ("loss.beta=nan", "must be finite and >= 0; got nan"),
        ("loss.beta=True", "must be a number; got True"),
        ("optimizer.clip_norm=1,None", "None is no number"),
        ("loss.attack.num_steps=3,5", "takes no real number"),
        ("training.batch_size=64,128", "is not of the loss or optimizer"),
        ("training.ema_decay=0.5,0.9", "is not of the loss or optimizer"),
        ("seed=1,2", "is not of the loss or optimizer"),
        ("", "unknown field"),
    ],
)
def test_what_cannot_be_swept_is_one_line(cfg, sweep, reason):
    with pytest.raises(config.ConfigError) as error:
        study.members(cfg, [sweep], 2)
    assert str(error.value).startswith(f"--sweep={sweep}: ") and reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_knob_in_two_sweeps_is_refused(cfg):
    with pytest.raises(config.ConfigError, match="given in two sweeps"):
        study.members(cfg, ["loss.beta=1", "loss.beta=2"], 1)


def test_an_evaluation_without_attack_is_refused(cfg):
    changed = config.override(cfg, [])
    changed.evaluation.attacks = {}
    with pytest.raises(config.ConfigError, match="evaluation.attacks: must have an entry"):
        config.validate(changed)


def test_seeds_that_would_repeat_others_are_refused(cfg):
    with pytest.raises(config.ConfigError, match="--config.seed: must be finite and >= 0 and <="):
        config.override(cfg, [f"seed={2**31}"])


def test_methods_are_named_by_their_loss(cfg):
    assert study.method_of(cfg) == "TRADES"
    names = {pgd_at: "PGD-AT", standard: "standard", sgd: "SGD"}
    assert {method: study.method_of(fdl.Config(dict, loss=fdl.Config(method))) for method in names} == names
    assert study.method_of(fdl.Config(dict, loss=fdl.Config(crown_ibp))) == "CROWN-IBP"
    wrapped = fdl.Config(l1, fdl.Config(balanced, fdl.Config(mtl_ibp), tolerance=0.5), weight=0.0)
    assert study.method_of(fdl.Config(dict, loss=wrapped)) == "MTL-IBP"
