"""Configs as data: there and back, told apart, compared; and what a hostile record cannot reach."""

import json

import fiddle as fdl
import numpy as np
import pytest

from robustgen import config, schedules, threats
from robustgen.attacks import kl, margin, pgd
from robustgen.config.errors import ConfigError
from robustgen.losses import trades


def ramp(start, end):
    return fdl.Config(schedules.ramp, start, end, begin=0.0, length=1.0)


def synthetic():
    threat = fdl.Config(threats.linf, eps=0.1)
    attack = fdl.Config(pgd, threat, objective=kl, step_size=ramp(0.0, 0.02), num_steps=10)
    return {"loss": fdl.Config(trades, attack, beta=6.0), "threat": threat, "checks": (0.1, 0.2)}


def test_json_is_plain_and_comes_back_with_its_sharing():
    cfg = synthetic()
    back = config.from_json(json.loads(json.dumps(config.to_json(cfg), allow_nan=False)))
    assert config.to_json(back) == config.to_json(cfg)
    assert config.fingerprint(back) == config.fingerprint(cfg)
    assert back["loss"].attack.threat is back["threat"] and back["loss"].attack.objective is kl
    config.validate(back)
    back["threat"].eps = 0.3
    assert config.diff(cfg, back) == ["loss.attack.threat.eps: 0.1 -> 0.3", "threat.eps: 0.1 -> 0.3"]


def test_arrays_and_infinite_numbers_survive():
    lower = np.array([[0.1, 0.2]], np.float32)
    box = fdl.Config(threats.box, lower=lower, upper=np.float32(1))
    back = config.from_json(json.loads(json.dumps(config.to_json(box), allow_nan=False)))
    assert back.lower.dtype == np.float32 and (back.lower == lower).all() and back.upper == 1
    odd = fdl.Config(threats.linf, eps=float("inf"))
    assert config.from_json(config.to_json(odd)).eps == float("inf")


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "robustgen.config.recording:subprocess.run",
        "robustgen.config.recording:os.replace",
        "robustgen.nothing:x",
        "robustgen.threats:nothing",
        "robustgen:__builtins__.eval",
        "robustgen.__main__:main",
    ],
)
@pytest.mark.parametrize("kind", ["function", "factory"])
def test_a_record_reaches_nothing_but_functions_defined_in_the_package(name, kind):
    data = {"function": name} if kind == "function" else {"factory": name, "knobs": {}}
    with pytest.raises(ConfigError):
        config.from_json(data)


NO_RECORDS = [
    {},
    {"same": "x"},
    {"same": [1]},
    {"factory": 3, "knobs": {}},
    {"float": "1"},
    {"x": 1, "y": 2},
    {"array": [[1], [2, 3]], "dtype": "float32"},
    {"array": 1, "dtype": "no"},
]


@pytest.mark.parametrize("data", NO_RECORDS)
def test_what_is_no_record_is_refused(data):
    with pytest.raises(ConfigError):
        config.from_json({"dict": {"loss": data}})


def test_fingerprint_sees_values_and_nothing_else():
    base = config.fingerprint(synthetic())
    assert base == config.fingerprint(synthetic()) and len(base) == 12
    reordered = dict(reversed(synthetic().items()))
    reordered["loss"].attack_forward = reordered["loss"].attack_forward  # written out, no longer a default
    assert config.fingerprint(reordered) == base
    assert config.fingerprint(config.override(synthetic(), ["loss.beta=6"])) == base
    seen = {config.fingerprint(config.override(synthetic(), [f"loss.beta={b}"])) for b in (1, 2, 2.5)}
    assert len(seen | {base}) == 4


def test_diff_is_readable():
    changed = synthetic()
    changed["loss"].attack.objective = margin
    changed["loss"].beta = ramp(0.0, 6.0)
    changed["loss"].attack.threat = fdl.Config(threats.l2, eps=1.0, clip=None)
    changed["checks"] = ()
    assert config.diff(synthetic(), changed) == [
        "loss.attack.threat: linf(eps=0.1, clip=(0.0, 1.0)) -> l2(eps=1.0, clip=None)",
        "loss.attack.objective: kl -> margin",
        "loss.beta: 6.0 -> ramp(start=0.0, end=6.0, begin=0.0, length=1.0)",
        "checks: (0.1, 0.2) -> ()",
    ]
