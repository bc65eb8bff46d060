"""From trained nets to the runs of a report: columns of test and train examples, curves, examples, training history."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import jax
import numpy as np

from robustgen import config, log, train
from robustgen.config import fields, tree
from robustgen.core import Array, Net
from robustgen.data.source import SplitName, scaled
from robustgen.evaluation.columns import Columns, unstack
from robustgen.evaluation.curves import Curve
from robustgen.evaluation.results import Examples, Run, adversarial_examples
from robustgen.measure import evaluation_key, evaluator_of, measure, measure_curve
from robustgen.population import Population, diverged, grid
from robustgen.workflow import Plan

_HISTORY = {
    "train_clean": "clean_accuracy",
    "train_robust": "adv_accuracy",
    "validation_clean": "validation_clean",
    "validation_robust": "validation_robust",
}


def method_of(cfg: fdl.Config) -> str:
    """The method's name in tables: that of the loss, the innermost of those that wrap one, in capitals where its
    words are short enough to be acronyms."""
    loss = cfg.loss
    while isinstance(getattr(loss, "loss", None), fdl.Config):
        loss = loss.loss
    name = fdl.get_callable(loss).__name__.replace("_", "-")
    return name.upper() if max(map(len, name.split("-"))) < 7 else name


def members(cfg: fdl.Config, sweeps: Sequence[str], num_seeds: int) -> Population:
    """The population of `["loss.beta=0,1,3"]` x seeds, every combination, each value checked as `--config.*` is.

    Only real numbers of the loss and the optimizer can differ within one compile. Raises `ConfigError` for others, and
    for what is given twice, as a run counted twice would make intervals too narrow.
    """
    values: dict[str, list[float]] = {}
    for sweep in sweeps:
        path, _, listed = sweep.partition("=")
        try:
            if path in values:
                raise config.ConfigError(path, "is given in two sweeps; put all its values into one")
            values[path] = [_swept(cfg, path, text) for text in listed.split(",")]
            if twice := [value for value in values[path] if values[path].count(value) > 1]:
                raise config.ConfigError(path, f"{twice[0]:g} is listed twice")
        except config.ConfigError as error:
            raise config.ConfigError(f"--sweep={sweep}", error.reason) from error
    return grid(range(cfg.seed, cfg.seed + num_seeds), values)


def _swept(cfg: fdl.Config, path: str, text: str) -> float:
    """One value of a sweep. Raises `ConfigError` where it is refused, or cannot differ between members."""
    field = tree.find(cfg, path)
    if path.partition(".")[0] not in ("loss", "optimizer"):
        raise config.ConfigError(path, "is not of the loss or optimizer, only their knobs can differ in one compile")
    if not fields.takes_real(field.annotation):
        raise config.ConfigError(path, "takes no real number, and only those can differ in one compile")
    if not text:
        raise config.ConfigError(path, "needs values: --sweep=FIELD=VALUE,VALUE,...")
    changed = config.override(cfg, [f"{path}={text}"])
    config.validate(changed)
    value = tree.find(changed, path).value
    if value is None:
        raise config.ConfigError(path, "None is no number")
    _trace(cfg, path, value)
    return float(value)


def _trace(cfg: fdl.Config, path: str, value: float) -> None:
    """Raises `ConfigError` where what holds the knob must know its value when it is traced."""

    def built(value: Array, step: Array) -> None:
        changed = config.with_values(cfg, {path: value})
        config.at_step(changed.loss, step, num_steps=100)
        config.build(changed.optimizer, num_steps=100)

    try:
        jax.eval_shape(built, np.float32(value), np.int32(0))
    except jax.errors.JAXTypeError as error:
        raise config.ConfigError(path, "decides what is compiled, so it cannot differ in one compile") from error


def study_one(
    plan: Plan, net: Net, method: str, folder: pathlib.Path, more: Columns | None = None,
    num_examples: int | None = None,
) -> Run:  # fmt: skip
    """Measures one net; `folder` is where it was trained, for the history.

    `more` are columns of the same test examples that were measured before (a cascade's), `num_examples` how many.
    """
    columns, train_columns = _columns(plan, net, method, num_examples=num_examples)
    columns |= more or {}
    return Run(
        method=method,
        seed=plan.recipe.seed,
        knobs={},
        columns=columns,
        train_columns=train_columns,
        history=history(plan, folder),
        curve=measure_curve(plan.config, plan.recipe, net) if plan.recipe.evaluation.curve else None,
        examples=_examples(plan, net, columns),
    )


def study_many(plan: Plan, nets: Net, members: Population, method: str, folder: pathlib.Path) -> list[Run]:
    """Measures a population. Curves are of one seed of every setting, adversarial examples of the first member.

    A member that diverged in training is a run without columns. Raises `TrainingFailed` where all did.
    """
    count = len(members.seeds)
    failed = _failures(folder, count)
    if len(failed) == count:
        raise train.TrainingFailed(f"{folder}: every member diverged; try a smaller learning rate")
    stacked, stacked_train = _columns(plan, nets, method, num_nets=count)
    curves = _curves(plan, nets, members)
    runs = []
    for i, (columns, train_columns) in enumerate(
        zip(unstack(stacked, count), unstack(stacked_train, count), strict=True)
    ):
        seed, knobs = int(members.seeds[i]), members.describe(i)
        if i in failed:
            runs.append(Run(method, seed, knobs, None, failure=failed[i]))
            continue
        examples = _examples(plan, _member(nets, i), columns) if all(run.columns is None for run in runs) else None
        runs.append(
            Run(method, seed, knobs, columns, train_columns, history(plan, folder, i), curves.get(i), examples)
        )
    return runs


def _failures(folder: pathlib.Path, count: int) -> dict[int, str]:
    """By member: in which stretch of training its loss or gradient was first not finite."""
    failed: dict[int, str] = {}
    for row in log.rows(folder / "metrics.jsonl"):
        bad = diverged({name: np.reshape(row[name], (count, 1)) for name in ("loss", "grad_norm")})
        for member in set(np.flatnonzero(bad).tolist()) - failed.keys():
            failed[member] = f"diverged in the steps up to {row['step']}"
    return failed


def history(plan: Plan, folder: pathlib.Path, member: int | None = None) -> dict[str, np.ndarray] | None:
    """Training curves from metrics.jsonl, at the steps where the validation split was looked at; None without it."""
    path = folder / "metrics.jsonl"
    if not path.exists():  # checkpoints were copied alone
        return None
    rows = [row for row in log.rows(path) if "validation_clean" in row]
    found = {"epoch": np.array([row["step"] / plan.steps_per_epoch for row in rows])}
    for name, metric in _HISTORY.items():
        if rows and metric in rows[0]:
            found[name] = np.array([_of(row, metric, member) for row in rows])
    return found


def _of(row: Mapping[str, Any], metric: str, member: int | None) -> float:
    return row[metric] if member is None else row[metric][member]


def _columns(
    plan: Plan, net: Net, method: str, num_nets: int | None = None, num_examples: int | None = None
) -> tuple[Columns, Columns]:
    """Of the test split, and of as many training examples."""
    recipe, measured = plan.recipe, evaluator_of(plan.config, plan.recipe)
    sizes = {split: len(recipe.data.load(split).y) for split in ("test", "train")}
    count = min(num_examples or recipe.evaluation.num_examples or sizes["test"], sizes["test"])
    progress = log.Progress(count + min(count, sizes["train"]), label=f"attack {method}")

    def one(split: SplitName, before: int) -> Columns:
        return measure(
            measured, net, recipe.data, split, recipe, num_examples=count, num_nets=num_nets,
            progress=lambda done, total: progress.update(before + done),
        )  # fmt: skip

    both = one("test", 0), one("train", count)
    progress.close()
    return both


def _curves(plan: Plan, nets: Net, members: Population) -> dict[int, Curve]:
    """By member: of the first seed only."""
    if not plan.recipe.evaluation.curve:
        return {}
    chosen = np.flatnonzero(members.seeds == members.seeds[0])
    found = measure_curve(plan.config, plan.recipe, _member(nets, chosen), num_nets=len(chosen))
    certified = [None] * len(chosen) if found.certified is None else found.certified
    each = [Curve(found.eps, *one) for one in zip(found.robust, certified, strict=True)]
    return dict(zip(chosen.tolist(), each, strict=True))


def _examples(plan: Plan, net: Net, columns: Columns) -> Examples | None:
    """None where no example is right, as only those are shown."""
    if not columns["clean"].any():
        return None
    recipe = plan.recipe
    test = scaled(recipe.data.load("test"), recipe.data.scale)
    count = len(columns["index"])
    return adversarial_examples(
        evaluator_of(plan.config, recipe), net, test.x[:count], test.y[:count], columns,
        attack=next(iter(recipe.evaluation.attacks)), key=evaluation_key(recipe),
        batch_size=min(recipe.evaluation.batch_size, 9), seed=recipe.seed,
    )  # fmt: skip


def _member(nets: Net, i: int | np.ndarray) -> Net:
    return jax.tree.map(lambda leaf: leaf[i], nets)

