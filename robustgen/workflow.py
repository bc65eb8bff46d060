"""From a config to a trained net, and from a net to a `Run` of the report: what every experiment script is made of.

Training writes `metrics.jsonl` and `checkpoints/` into a folder and resumes from them; evaluation is handed nets and
never touches the trainer.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np

from robustgen import checkpoint, config, log, loop, parallel, population, train
from robustgen.core import Array, Net, Stream, TrainState
from robustgen.data.epochs import steps_per_epoch
from robustgen.data.source import Split, sealed
from robustgen.data.stream import stream
from robustgen.evaluation.columns import evaluator
from robustgen.knobs import KnobError
from robustgen.measure import measure, radius
from robustgen.models.net import init
from robustgen.recipe import Recipe


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
    each_epoch = steps_per_epoch(num_examples, batch_size)
    num_steps = train.steps_in(recipe.training.num_epochs, num_examples=num_examples, batch_size=batch_size)
    return Plan(cfg, recipe, num_steps, each_epoch)


def load_net(plan: Plan, folder: pathlib.Path) -> Net:
    """The net that training left in `folder`. Raises `CheckpointError` where there is no finished one."""
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
    """The learner with `values` ({"loss.beta": tracer}) in place of the config's, of its loss and optimizer alone."""
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


def batches(plan: Plan, split: Split, spread: Callable[[Array], Array] = lambda rows: rows) -> Stream:
    """The training batches of a split on the device, as the config describes them."""
    training = plan.recipe.training
    return stream(
        split, plan.recipe.data.scale, batch_size=training.batch_size, augment=training.augment, spread=spread
    )


def train_one(
    plan: Plan, folder: pathlib.Path, *, backend: parallel.Backend, save_seconds: float = loop.SAVE_SECONDS
) -> Net:
    """Trains the config's model with its seed; resumes what `folder` holds. Returns the net to evaluate.

    Raises `KnobError` where the back end's devices cannot share a batch equally.
    """
    if plan.recipe.training.batch_size % backend.num_devices:
        raise KnobError("batch_size", f"must be a multiple of the {backend.num_devices} devices that share it")
    learner = learner_at(plan, {})
    key = jax.random.key(plan.recipe.seed)
    state = backend.place(jax.jit(lambda key: train.init(learner, init_net(plan, key), key))(key))

    def advance(state: TrainState, split: Split, *, length: int) -> tuple[TrainState, dict[str, Array]]:
        return train.chunk(learner, batches(plan, split, backend.spread), state, length=length)

    state = _trained(plan, folder, state, advance, backend, None, guard=_guard(plan), save_seconds=save_seconds)
    return parallel.on_this_process(train.final_net(state, plan.recipe.model.apply))


def train_many(
    plan: Plan, folder: pathlib.Path, members: population.Population, *, backend: parallel.Backend
) -> Net:
    """Trains a population in one compile; resumes what `folder` holds. Returns the members' nets, stacked."""
    at = functools.partial(learner_at, plan)
    state = backend.place(population.init_population(at, functools.partial(init_net, plan), members))
    values = jax.tree.map(jnp.asarray, members.values)

    def advance(state: TrainState, split: Split, *, length: int) -> tuple[TrainState, dict[str, Array]]:
        return population.population_chunk(at, batches(plan, split), state, values, length=length)

    state = _trained(plan, folder, state, advance, backend, len(members.seeds), guard=_tell_of_diverged())
    return parallel.on_this_process(train.final_net(state, plan.recipe.model.apply))


def _trained(
    plan: Plan, folder: pathlib.Path, state: TrainState, advance: Callable, backend: parallel.Backend,
    num_nets: int | None, *, guard: Callable[[int, dict[str, np.ndarray]], None],
    save_seconds: float = loop.SAVE_SECONDS,
) -> TrainState:  # fmt: skip
    """Runs `advance(state, split, length=...)` to the plan's last step."""
    split = backend.place(sealed(plan.recipe.data).load("train"))
    compiled = functools.cache(lambda length: backend.compile(functools.partial(advance, length=length)))
    training = plan.recipe.training
    return loop.run(
        lambda state, length: compiled(length)(state, split),
        state,
        folder=folder,
        num_steps=plan.num_steps,
        span=training.log_every,
        validate=_validator(plan, num_nets),
        validate_every=max(1, round(training.validate_every * plan.steps_per_epoch)),
        guard=guard,
        save_seconds=save_seconds,
    )


def _guard(plan: Plan) -> Callable[[int, dict[str, np.ndarray]], None]:
    """Stops a run that is not finite, or whose training accuracy stays at chance for a tenth of training."""
    patience = max(plan.num_steps // 10, 5 * plan.recipe.training.log_every)
    collapsed = train.stop_if_collapsed(num_classes=plan.recipe.data.num_classes, patience=patience)

    def guard(first_step: int, metrics: dict[str, np.ndarray]) -> None:
        train.stop_if_not_finite(first_step, metrics)
        collapsed(first_step, metrics)

    return guard


def _tell_of_diverged() -> Callable[[int, dict[str, np.ndarray]], None]:
    """A member of a population that diverges is named, once; the others go on."""
    told: set[int] = set()

    def guard(first_step: int, metrics: dict[str, np.ndarray]) -> None:
        for member in set(np.flatnonzero(population.diverged(metrics)).tolist()) - told:
            told.add(member)
            log.warn(f"member {member} diverged at about step {first_step}; it keeps its last good parameters")

    return guard


def _validator(plan: Plan, num_nets: int | None) -> Callable[[TrainState], dict[str, np.ndarray]]:
    """Clean and robust accuracy on the validation split, of the net that would be evaluated now."""
    recipe, data = plan.recipe, sealed(plan.recipe.data)
    threat, eps = recipe.evaluation.threat, radius(plan.config)
    watched = evaluator(attacks={"": recipe.training.validate_with(threat, eps)}, certifiers={}, threat=threat)

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        net = parallel.on_this_process(train.final_net(state, recipe.model.apply))
        found = measure(watched, net, data, "validation", recipe, num_examples=None, num_nets=num_nets)
        return {"validation_clean": found["clean"].mean(-1), "validation_robust": found["robust:"].mean(-1)}

    return validate

