"""From a config to a trained net, and from a net to a `Run` of the report: what every experiment script is made of.

Training writes `metrics.jsonl` and `checkpoints/` into a folder and resumes from them; evaluation is handed nets and
never touches the trainer.
"""

import functools
import json
import pathlib
import time
from typing import Any, Callable, Mapping, NamedTuple

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np

from robustgen import checkpoint, config, log, parallel, population, preemption, train
from robustgen.config import app
from robustgen.core import Array, Net, Stream, TrainState
from robustgen.data import source
from robustgen.data.source import Split, sealed
from robustgen.data.stream import stream
from robustgen.evaluation.columns import evaluator
from robustgen.evaluation.results import replace_file
from robustgen.measure import measure
from robustgen.models.net import init
from robustgen.recipe import Recipe

SAVE_SECONDS = 30.0
"""At most this much work is lost to `kill -9`; SIGTERM loses none. When a run saves changes none of its numbers."""


class Plan(NamedTuple):
    """A config made ready to train: everything built that no hyper-parameter of a population can change."""

    config: fdl.Config
    recipe: Recipe
    num_steps: int
    steps_per_epoch: float


def plan(cfg: fdl.Config) -> Plan:
    """Reads what is needed to count steps. Raises `DataError` or `KnobError`, before any device is touched.

    The recipe's loss and optimizer are those of step 0: `learner_at` builds them for every step and value.
    """
    recipe = config.at_step(cfg, 0, num_steps=1)
    recipe.data.check()
    num_examples, batch_size = len(recipe.data.load("train").y), recipe.training.batch_size
    num_steps = train.steps_in(recipe.training.num_epochs, num_examples=num_examples, batch_size=batch_size)
    return Plan(cfg, recipe, num_steps, num_examples // batch_size)


def open_run(
    run: app.Run, *, folder: pathlib.Path | None = None, members: population.Population | None = None
) -> tuple[Plan, pathlib.Path]:
    """The plan of a command line and the folder of its run, its record written there. What every script begins with.

    The folder is `folder`, else `--workdir`, else `runs/NAME` after the config file. Raises `ConfigError` where it holds
    a run of another config or other `members`: results are never mixed, nor overwritten.
    """
    folder = folder or pathlib.Path(run.workdir or pathlib.Path("runs", pathlib.Path(run.path_and_arg).stem))
    made = plan(run.config)
    fingerprint = config.fingerprint(run.config)
    sweep = None if members is None else {name: np.asarray(v).tolist() for name, v in members.values.items()}
    identity = {"fingerprint": fingerprint, "sweep": sweep, "seeds": None if members is None else members.seeds.tolist()}
    _refuse_another(folder, identity)
    data = made.recipe.data
    data_hash = source.fingerprint(data, "train")
    config.record(folder, run.config, run.base, argv=run.argv, seed=made.recipe.seed, data_hash=data_hash)
    sizes = "  ".join(f"{name} {len(data.load(name).y)}" for name in ("train", "validation"))
    log.note(f"run    {fingerprint} in {folder} on {jax.device_count()} x {jax.devices()[0].device_kind}")
    log.note(f"data   {data.name}  {sizes}  sha256 {data_hash[:8]}")
    return made, folder


def _refuse_another(folder: pathlib.Path, identity: dict[str, Any]) -> None:
    path, text = folder / "identity.json", json.dumps(identity)
    if path.exists() and path.read_text() != text:
        raise config.ConfigError("--workdir", f"{folder} holds a run of another config; choose another --workdir")
    replace_file(path, text.encode())


def load_net(plan: Plan, folder: pathlib.Path) -> Net:
    """The net that training left in `folder`. Raises `CheckpointError` where there is none, or none that is finished."""
    learner = learner_at(plan, {})
    like = jax.eval_shape(lambda key: train.init(learner, init_net(plan, key), key), jax.random.key(0))
    found = checkpoint.restore(folder / "checkpoints", like)
    if found is None or found.step < plan.num_steps:
        done = 0 if found is None else found.step
        raise checkpoint.CheckpointError(
            f"{folder}: trained {done} of {plan.num_steps} steps; run experiments/train.py with the same flags first"
        )
    return train.final_net(jax.tree.map(jnp.asarray, found.state), plan.recipe.model.apply)


def learner_at(plan: Plan, values: Mapping[str, Array]) -> train.Learner:
    """The learner with `values` ({"loss.beta": tracer}) in place of the config's."""
    cfg = config.with_values(plan.config, values)
    return train.Learner(
        apply_fn=plan.recipe.model.apply,
        loss_at=lambda step: config.at_step(cfg.loss, step, num_steps=plan.num_steps),
        tx=config.build(cfg.optimizer, num_steps=plan.num_steps),
        ema_decay=plan.recipe.training.ema_decay,
    )


def init_net(plan: Plan, key: Array) -> Net:
    """A fresh net of the plan's model."""
    return init(plan.recipe.model, plan.recipe.data.shape, key)


def train_one(plan: Plan, folder: pathlib.Path, *, backend: parallel.Backend) -> Net:
    """Trains the config's model with its seed; resumes what `folder` holds. Returns the net to evaluate."""
    learner = learner_at(plan, {})
    key = jax.random.key(plan.recipe.seed)
    state = backend.place(jax.jit(lambda key: train.init(learner, init_net(plan, key), key))(key))

    def advance(state: TrainState, split: Split, *, length: int) -> tuple[TrainState, dict[str, Array]]:
        return train.chunk(learner, _stream(plan, split, backend.spread), state, length=length)

    guards = [train.stop_if_not_finite]
    state = _run(plan, folder, state, advance, backend, validate=_validator(plan, None), guards=guards)
    return train.final_net(state, plan.recipe.model.apply)


def train_many(
    plan: Plan, folder: pathlib.Path, members: population.Population, *, backend: parallel.Backend
) -> Net:
    """Trains a population in one compile; resumes what `folder` holds. Returns the members' nets, stacked."""
    at = functools.partial(learner_at, plan)
    state = backend.place(population.init_population(at, functools.partial(init_net, plan), members))
    values = jax.tree.map(jnp.asarray, members.values)

    def advance(state: TrainState, split: Split, *, length: int) -> tuple[TrainState, dict[str, Array]]:
        return population.population_chunk(at, _stream(plan, split), state, values, length=length)

    state = _run(plan, folder, state, advance, backend, validate=_validator(plan, len(members.seeds)), guards=[])
    return train.final_net(state, plan.recipe.model.apply)


def _stream(plan: Plan, split: Split, spread: Callable[[Array], Array] = lambda rows: rows) -> Stream:
    training = plan.recipe.training
    return stream(
        split, plan.recipe.data.scale, batch_size=training.batch_size, augment=training.augment, spread=spread
    )


def _run(
    plan: Plan,
    folder: pathlib.Path,
    state: TrainState,
    advance: Callable,
    backend: parallel.Backend,
    *,
    validate: Callable[[TrainState], dict[str, np.ndarray]],
    guards: list[Callable],
) -> TrainState:
    """The loop around `advance`: restore, train, log, validate, save. Returns the last state."""
    split = backend.place(sealed(plan.recipe.data).load("train"))
    compiled = functools.cache(lambda length: backend.compile(functools.partial(advance, length=length)))
    metrics, state = _resume(folder, state)
    start = int(np.max(state.step))
    progress = log.Progress(plan.num_steps, start=start, label="train")
    validate_every = max(1, round(plan.recipe.training.validate_every * plan.steps_per_epoch))
    saved = time.monotonic()
    spans = train.fit(
        lambda state, length: compiled(length)(state, split),
        state,
        num_steps=plan.num_steps,
        span=plan.recipe.training.log_every,
        guard=lambda step, rows: [guard(step, rows) for guard in guards],
    )
    before = start
    for span in spans:
        state, row = span.state, span.metrics
        if span.step // validate_every > before // validate_every or span.step == plan.num_steps:
            row = {**row, **validate(state)}
        before = span.step
        metrics.write(span.step, row)
        progress.update(span.step, _headline(row))
        last = span.step == plan.num_steps
        if last or preemption.requested() or time.monotonic() - saved > SAVE_SECONDS:
            metrics.flush()
            checkpoint.save(folder / "checkpoints", span.step, state)
            saved = time.monotonic()
        preemption.check()
    progress.close()
    metrics.flush()
    return state


def _resume(folder: pathlib.Path, state: TrainState) -> tuple[log.MetricsLog, TrainState]:
    metrics = log.MetricsLog(folder / "metrics.jsonl")
    found = checkpoint.restore(folder / "checkpoints", state)
    if found is None:
        metrics.truncate_after(-1)
        return metrics, state
    log.note(f"resume  step {found.step} of {folder}")
    metrics.truncate_after(found.step)
    return metrics, found.state


def _validator(plan: Plan, num_nets: int | None) -> Callable[[TrainState], dict[str, np.ndarray]]:
    """Clean and robust accuracy on the validation split, of the net that would be evaluated now."""
    recipe = plan.recipe
    threat, eps = recipe.evaluation.threat, plan.config.evaluation.threat.eps
    watched = evaluator(attacks={"": recipe.training.validate_with(threat, eps)}, certifiers={}, threat=threat)

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        net = train.final_net(state, recipe.model.apply)
        found = measure(watched, net, recipe.data, "validation", recipe, num_examples=None, num_nets=num_nets)
        return {"validation_clean": found["clean"].mean(-1), "validation_robust": found["robust:"].mean(-1)}

    return validate


def _headline(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("loss", "clean_accuracy", "adv_accuracy", "certified_accuracy", "validation_clean", "validation_robust")
    return {name: row[name] for name in shown if name in row}
