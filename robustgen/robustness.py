"""AutoAttack on a trained net: the cascade that a config's threat set asks for, and its columns of the test split."""

import pathlib
from collections.abc import Callable

import fiddle as fdl
import numpy as np

from robustgen import config, log, threats
from robustgen.attacks import autoattack
from robustgen.attacks.search import Cascade
from robustgen.cascade import lines
from robustgen.cascade.journal import JournalError as JournalError
from robustgen.cascade.whole import Evaluation, evaluate
from robustgen.core import Certifier, Net
from robustgen.data.source import scaled
from robustgen.evaluation.intervals import wilson
from robustgen.measure import radius
from robustgen.recipe import Recipe

SLICE = 250
"""Examples that an early stop looks at together."""

Version = Callable[..., Cascade]

VERSIONS: dict[str, Version] = {"standard": autoattack.standard, "plus": autoattack.plus, "rand": autoattack.rand}

_FAMILIES = {threats.linf: autoattack.LINF, threats.l2: autoattack.L2, threats.l1: autoattack.L1}


def cascade_of(cfg: fdl.Config, version: Version) -> Cascade:
    """AutoAttack in the threat set that the config measures. Raises `ConfigError` where it has no attacks for it."""
    threat = cfg.evaluation.threat
    family = _FAMILIES.get(fdl.get_callable(threat))
    if family is None:
        known = ", ".join(factory.__name__ for factory in _FAMILIES)
        reason = f"AutoAttack is for {known}; got {fdl.get_callable(threat).__name__}: --autoattack=off leaves it out"
        raise config.ConfigError("evaluation.threat", reason)
    clip = fdl.ordered_arguments(threat, include_defaults=True)["clip"]
    return version(family, eps=radius(cfg), clip=clip)


def first_certifier(recipe: Recipe) -> Certifier | None:
    """The first certifier that the recipe names, in its threat set; None where it names none."""
    makers = list(recipe.evaluation.certifiers.values())
    return makers[0](recipe.evaluation.threat) if makers else None


def attack_test_split(
    cascade: Cascade, net: Net, recipe: Recipe, *, journal: pathlib.Path, certifier: Certifier | None = None,
    narrow: float | None = None,
) -> Evaluation:  # fmt: skip
    """The cascade on the first `evaluation.num_examples` of the test split, with progress and the lines users know.

    `certifier`: what it verifies is not attacked. `narrow`: goes by slices of 250 examples, and stops once the Wilson
    interval of the robust accuracy is no wider. What has been attacked then is what a whole evaluation says of these
    examples.
    """
    x, y = scaled(recipe.data.load("test"), recipe.data.scale)
    count = min(recipe.evaluation.num_examples or len(y), len(y))
    step, found = SLICE if narrow else count, None
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        progress, after = lines.announcer(len(rows))
        part = evaluate(
            cascade, net, x[rows], y[rows], seed=recipe.seed, index=rows, certifier=certifier, progress=progress,
            after=after, journal=journal.with_stem(f"{journal.stem}_{start}"),
        )  # fmt: skip
        found = part if found is None else _joined(found, part)
        held = found.columns[f"robust:{cascade.name}"]
        now = wilson(int(held.sum()), len(held))
        if narrow and now.upper - now.lower <= narrow:
            break
    log.say(lines.closing(found, cascade.name))
    return found


def _joined(first: Evaluation, second: Evaluation) -> Evaluation:
    columns = {name: np.concatenate([column, second.columns[name]]) for name, column in first.columns.items()}
    spent = tuple(a + b for a, b in zip(first.spent, second.spent, strict=True))
    return Evaluation(columns, np.concatenate([first.x_adv, second.x_adv]), first.stages + second.stages, spent)
