"""Configs: changed, checked, built; with small factories, and real ones of the package."""

import fiddle as fdl
import jax
import jax.numpy as jnp
import optax
import pytest

from robustgen import config, optim, schedules, threats
from robustgen.config import tree
from robustgen.config.errors import ConfigError
from robustgen.knobs import Count, Fraction, NonNegative, Positive, checked


@checked
def attack(threat, *, step_size: Positive, num_steps: Count, objective=max):
    return {"threat": threat, "step_size": step_size, "num_steps": num_steps, "objective": objective}


@checked
def loss(attack, *, beta: NonNegative, mix: tuple[Fraction, ...] = (0.5, 0.5)):
    return {"attack": attack, "beta": beta, "mix": mix}


@checked
def root(*, loss, optimizer, checks, name: str, threat, seed: int | None = None, verbose: bool = False):
    return {"loss": loss, "optimizer": optimizer, "checks": checks, "threat": threat, "name": name}


def ramp(start, end):
    return fdl.Config(schedules.ramp, start, end, begin=0.0, length=1.0)


def synthetic():
    threat = fdl.Config(threats.linf, eps=0.1)
    return fdl.Config(
        root,
        loss=fdl.Config(loss, fdl.Config(attack, threat, step_size=0.02, num_steps=10), beta=6.0),
        optimizer=fdl.Config(optim.sgd, learning_rate=ramp(0.2, 0.0), momentum=0.9, weight_decay=0.0),
        checks=[fdl.Config(attack, threat, step_size=0.01, num_steps=50)],
        threat=threat,
        name="digits",
    )


def refused(*assignments, cfg=None):
    with pytest.raises(ConfigError) as error:
        config.validate(config.override(synthetic() if cfg is None else cfg, assignments))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- override


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("loss.beta=3", "loss.beta", 3),
        ("loss.beta=8/255", "loss.beta", 8 / 255),
        ("loss.beta=2.5e-1", "loss.beta", 0.25),
        ("name=mnist", "name", "mnist"),
        ("name='3'", "name", "3"),
        ("name=/data=x/y", "name", "/data=x/y"),
        ("verbose=True", "verbose", True),
        ("seed=None", "seed", None),
        ("loss.mix=(1, 0, 0)", "loss.mix", (1, 0, 0)),
        ("loss.mix=[1, 0]", "loss.mix", (1, 0)),
        ("loss.mix.1=0.25", "loss.mix", (0.5, 0.25)),
        ("checks.0.num_steps=7", "checks.0.num_steps", 7),
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate", 0.5),
        ("optimizer.learning_rate.end=0.1", "optimizer.learning_rate.end", 0.1),
    ],
)
def test_override_sets_a_copy(assignment, path, value):
    base = synthetic()
    changed = config.override(base, [assignment])
    assert tree.find(changed, path).value == value
    config.validate(changed)
    assert config.diff(synthetic(), base) == []


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("loss.betta=3", "--config.loss.betta: unknown field; did you mean loss.beta?"),
        ("beta=3", "--config.beta: unknown field; did you mean loss.beta?"),
        ("los.beta=3", "--config.los.beta: unknown field; did you mean loss.beta?"),
        ("checks.1.num_steps=3", "--config.checks.1.num_steps: unknown field; did you mean"),
        ("loss.beta.x=3", "--config.loss.beta.x: unknown field"),
        ("loss.beta", "--config.loss.beta: needs a value: --config.loss.beta=..."),
        ("loss.beta=", "--config.loss.beta: must be a number; got ''"),
        ("loss.beta=big", "--config.loss.beta: must be a number; got 'big'"),
        ("loss.beta=True", "--config.loss.beta: must be a number; got True"),
        ("loss.beta=nan", "--config.loss.beta: must be finite and >= 0; got nan"),
        ("loss.beta=1e999", "--config.loss.beta: must be finite and >= 0; got inf"),
        ("loss.beta=1/0", "--config.loss.beta: must be a number; got '1/0'"),
        ("loss.beta=-3", "--config.loss.beta: must be finite and >= 0; got -3"),
        ("loss.attack.num_steps=3.0", "--config.loss.attack.num_steps: must be a whole number; got 3.0"),
        ("loss.attack.step_size=0", "--config.loss.attack.step_size: must be finite and > 0; got 0"),
        ("loss.attack.objective=min", "--config.loss.attack.objective: cannot be set on the command line"),
        ("loss.attack=3", "--config.loss.attack: is put together in the file; edit it, or set one of loss.attack.thr"),
        ("name=3", "--config.name: must be a string; got 3; a string that looks so is quoted: '\"3\"'"),
        ("verbose=yes", "--config.verbose: must be True or False; got 'yes'"),
        ("loss.mix=0.5", "--config.loss.mix: must be a tuple; got 0.5"),
        ("loss.mix=(1, 2)", "--config.loss.mix: must be finite and >= 0 and <= 1; got 2"),
        ("loss.mix.0=2", "--config.loss.mix.0: must be finite and >= 0 and <= 1; got 2"),
        ("loss.mix.2=0", "--config.loss.mix.2: unknown field"),
        ("optimizer.learning_rate=-1", "--config.optimizer.learning_rate: must be finite and > 0; got -1"),
        ("optimizer.learning_rate.end=-1", "--config.optimizer.learning_rate: the schedule must be finite and >= 0; "),
        ("optimizer.learning_rate.begin=30", "--config.optimizer.learning_rate.begin: must be finite and >= 0 and <= "),
    ],
)
def test_what_is_wrong_is_one_line_with_the_fix(assignment, line):
    assert refused(assignment).startswith(line)


def test_a_shared_node_stays_shared_and_the_diff_shows_every_place():
    changed = config.override(synthetic(), ["loss.attack.threat.eps=0.3"])
    assert changed.loss.attack.threat is changed.threat is changed.checks[0].threat
    assert config.diff(synthetic(), changed) == [
        "loss.attack.threat.eps: 0.1 -> 0.3",
        "checks.0.threat.eps: 0.1 -> 0.3",
        "threat.eps: 0.1 -> 0.3",
    ]
    built = config.build(config.override(changed, ["optimizer.learning_rate=1"]))
    assert built["loss"]["attack"]["threat"] is built["threat"] is built["checks"][0]["threat"]


# --- validate, build, at_step


def test_validate_names_the_node_of_a_missing_argument_and_of_a_failing_factory():
    cfg = synthetic()
    del cfg.loss.beta
    assert refused(cfg=cfg) == "--config.loss.beta: missing; loss() cannot do without it"
    config.validate(config.override(cfg, ["loss.beta=1"]))

    def int_of(text):
        return int(text)

    int_of.__qualname__ = "int_of"
    cfg = synthetic()
    cfg.checks = {"first": fdl.Config(int_of, "x")}
    assert refused(cfg=cfg).startswith("--config.checks.first: ValueError: invalid literal")


def test_unchecked_factories_and_what_no_record_could_name_are_refused_too():
    def plain(*, rate: Positive):
        return rate

    plain.__qualname__ = "plain"
    cfg = synthetic()
    cfg.checks = fdl.Config(plain, rate=-1.0)
    assert refused(cfg=cfg) == "--config.checks.rate: must be finite and > 0; got -1.0"
    cfg.checks = lambda: 0
    assert "cannot name" in refused(cfg=cfg)
    cfg.checks = {"a.b": 1}
    assert "keys must be text without dots" in refused(cfg=cfg)
    cfg.checks = schedules.ramp(0.0, 1.0, begin=0.0, length=1.0)
    assert "write fdl.Config(factory, ...) instead" in refused(cfg=cfg)


@pytest.mark.parametrize(("end", "problem"), [(3.0, None), (-1.0, "got -1"), (float("nan"), "nan")])
def test_both_ends_of_a_schedule_are_held_against_the_range(end, problem):
    cfg = synthetic()
    cfg.loss.beta = ramp(6.0, end)
    if problem is None:
        config.validate(cfg)
    else:
        assert problem in refused(cfg=cfg)


def test_at_step_follows_schedules_in_one_trace():
    cfg = synthetic()
    cfg.loss.beta = ramp(0.0, 6.0)
    cfg.threat.eps = ramp(0.0, 0.4)
    traces = []

    @jax.jit
    def at(step, x):
        traces.append(step)
        built = config.at_step(cfg.loss, step, 10)
        return built["beta"], built["attack"]["threat"].bounds(x)[1]

    for step in (0, 5, 10):
        beta, upper = at(step, jnp.full((1, 1), 0.25))
        assert float(beta) == pytest.approx(0.6 * step)
        assert float(upper[0, 0]) == pytest.approx(0.25 + 0.04 * step)
    assert len(traces) == 1
    assert config.at_step(cfg.loss, 5, 10)["beta"] == 3.0
    assert config.at_step(cfg.loss.beta, 5, 10) == 3.0


def test_build_gives_schedules_only_to_who_takes_them():
    cfg = synthetic()
    tx = config.build(cfg.optimizer, num_steps=4)
    params = jnp.zeros(1)
    update, state = tx.update(jnp.ones(1), tx.init(params), params)
    assert float(update[0]) == pytest.approx(-0.2)
    update, _ = tx.update(jnp.zeros(1), state, params)
    assert float(update[0]) == pytest.approx(-0.15 * 0.9)
    assert isinstance(config.build(cfg)["optimizer"], optax.GradientTransformation)
    cfg.loss.beta = ramp(0.0, 6.0)
    with pytest.raises(ConfigError, match="--config.loss.beta: is a schedule"):
        config.build(cfg)
    assert config.build(config.with_values(cfg, {"loss": None}))["loss"] is None


def test_build_works_within_a_build_and_lets_errors_of_factories_through():
    def nested():
        return config.build(synthetic().threat)

    def broken():
        raise RuntimeError("as it is")

    assert isinstance(config.build(fdl.Config(nested)), tuple)
    with pytest.raises(RuntimeError, match="^as it is$"):
        config.build(fdl.Config(broken))
    assert config.build(fdl.Partial(attack, None, step_size=0.1))(num_steps=2)["num_steps"] == 2


def test_with_values_takes_tracers_keeps_sharing_and_checks_numbers():
    cfg = synthetic()

    def build(beta, eps):
        changed = config.with_values(cfg, {"loss.beta": beta, "threat.eps": eps})
        assert changed.loss.attack.threat is changed.threat
        built = config.at_step(changed.loss, 0, 1)
        return built["beta"] * built["attack"]["threat"].bounds(jnp.full((1, 1), 0.5))[1].sum()

    found = jax.jit(jax.vmap(build))(jnp.array([1.0, 2.0]), jnp.array([0.1, 0.2]))
    assert found.tolist() == pytest.approx([0.6, 1.4])
    assert jax.grad(build)(2.0, 0.1) == pytest.approx(0.6)
    assert cfg.loss.beta == 6.0
    with pytest.raises(ConfigError, match="--config.loss.beta: must be finite and >= 0; got -1"):
        config.with_values(cfg, {"loss.beta": -1.0})
    with pytest.raises(ConfigError, match="did you mean loss.beta"):
        config.with_values(cfg, {"loss.betta": 1.0})
