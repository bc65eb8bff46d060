"""From trained nets to the runs of a report: columns of test and train examples, curves, examples, training history."""

import pathlib
from typing import Any, Mapping, Sequence

import fiddle as fdl
import jax
import numpy as np

from robustgen import config, log
from robustgen.core import Net
from robustgen.data.source import scaled
from robustgen.evaluation.columns import Columns, unstack
from robustgen.evaluation.curves import Curve
from robustgen.evaluation.results import Examples, Run, adversarial_examples
from robustgen.measure import evaluation_key, evaluator_of, measure, measure_curve
from robustgen.population import Population, grid
from robustgen.workflow import Plan

_HISTORY = {
    "train_clean": "clean_accuracy",
    "train_robust": "adv_accuracy",
    "validation_clean": "validation_clean",
    "validation_robust": "validation_robust",
}


def method_of(cfg: fdl.Config) -> str:
    """The method's name in tables: that of the loss, in capitals where it is short enough to be an acronym."""
    name = fdl.get_callable(cfg.loss).__name__.replace("_", "-")
    return name.upper() if len(name) < 7 else name


def members(cfg: fdl.Config, sweeps: Sequence[str], num_seeds: int) -> Population:
    """The population of `["loss.beta=0,1,3"]` x seeds, every combination, each value checked as `--config.*` is.

    Raises `ConfigError`.
    """
    values = {}
    for sweep in sweeps:
        path, _, listed = sweep.partition("=")
        for value in listed.split(","):
            config.validate(config.override(cfg, [f"{path}={value}"]))
            values.setdefault(path, []).append(float(value))
    return grid(range(cfg.seed, cfg.seed + num_seeds), values)


def study_one(plan: Plan, net: Net, method: str, folder: pathlib.Path) -> Run:
    """Measures one net; `folder` is where it was trained, for the history."""
    columns, train_columns = _columns(plan, net, method)
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
    """Measures a population. Curves are of one seed of every setting, adversarial examples of the first member."""
    count = len(members.seeds)
    stacked, stacked_train = _columns(plan, nets, method, num_nets=count)
    curves = _curves(plan, nets, members)
    runs = []
    for i, (columns, train_columns) in enumerate(
        zip(unstack(stacked, count), unstack(stacked_train, count), strict=True)
    ):
        knobs = {path.rpartition(".")[2]: value for path, value in members.describe(i).items()}
        examples = _examples(plan, _member(nets, i), columns) if i == 0 else None
        seed = int(members.seeds[i])
        runs.append(
            Run(method, seed, knobs, columns, train_columns, history(plan, folder, i), curves.get(i), examples)
        )
    return runs


def history(plan: Plan, folder: pathlib.Path, member: int | None = None) -> dict[str, np.ndarray]:
    """Training curves from metrics.jsonl, at the steps where the validation split was looked at."""
    rows = [row for row in log.rows(folder / "metrics.jsonl") if "validation_clean" in row]
    found = {"epoch": np.array([row["step"] / plan.steps_per_epoch for row in rows])}
    for name, metric in _HISTORY.items():
        if rows and metric in rows[0]:
            found[name] = np.array([_of(row, metric, member) for row in rows])
    return found


def _of(row: Mapping[str, Any], metric: str, member: int | None) -> float:
    return row[metric] if member is None else row[metric][member]


def _columns(plan: Plan, net: Net, method: str, num_nets: int | None = None) -> tuple[Columns, Columns]:
    """Of the test split, and of as many training examples."""
    recipe, measured = plan.recipe, evaluator_of(plan.config, plan.recipe)
    count = recipe.evaluation.num_examples or len(recipe.data.load("test").y)
    progress = log.Progress(2 * count, label=f"attack {method}")

    def one(split: str, before: int) -> Columns:
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
    split = [Curve(found.eps, found.robust[i], None if found.certified is None else found.certified[i]) for i in range(len(chosen))]
    return dict(zip(chosen.tolist(), split, strict=True))


def _examples(plan: Plan, net: Net, columns: Columns) -> Examples:
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

