"""Both sides of the trade-off, measured on trained nets: the columns of a split, and the curve over radii."""

from collections.abc import Callable

import fiddle as fdl
import jax
import numpy as np

from robustgen import config
from robustgen.core import Array, Net
from robustgen.data.source import Source, SplitName, scaled
from robustgen.evaluation.columns import Columns, Evaluator, columns, evaluator
from robustgen.evaluation.curves import Curve, curve
from robustgen.recipe import Recipe

Progress = Callable[[int, int], None]

_EVALUATION = np.uint32(2**31 - 2)  # folded into the run's key; the steps of training stay below


def evaluator_of(cfg: fdl.Config, recipe: Recipe) -> Evaluator:
    """The config's attacks and certifiers at the radius of its threat."""
    threat, eps = recipe.evaluation.threat, radius(cfg)
    attacks = {name: at(threat, eps) for name, at in recipe.evaluation.attacks.items()}
    certifiers = {name: at(threat) for name, at in recipe.evaluation.certifiers.items()}
    return evaluator(attacks=attacks, certifiers=certifiers, threat=threat)


def measure(
    measured: Evaluator, net: Net, source: Source, split: SplitName, recipe: Recipe, *, num_examples: int | None,
    num_nets: int | None = None, progress: Progress = lambda done, total: None,
) -> Columns:
    """One row per example for the first `num_examples` of a split (None: all). `num_nets` for a stacked population."""
    x, y = scaled(source.load(split), source.scale)
    count = len(y) if num_examples is None else min(num_examples, len(y))
    return columns(
        measured, net, x[:count], y[:count], key=evaluation_key(recipe), num_nets=num_nets, progress=progress,
        batch_size=min(recipe.evaluation.batch_size, count),
    )


def measure_curve(
    cfg: fdl.Config, recipe: Recipe, net: Net, *, num_examples: int | None = None, num_nets: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Curve:
    """Robust and certified examples of the test split at every radius of the config's curve.

    The worst case of the curve's attacks is the first of the config's attacks alone: one compile for all radii.
    """
    x, y = scaled(recipe.data.load("test"), recipe.data.scale)
    count = min(filter(None, (num_examples, recipe.evaluation.num_examples, len(y))))
    attack_at = next(iter(recipe.evaluation.attacks.values()))
    certifiers = list(recipe.evaluation.certifiers.values())

    def threat_at(eps: Array):
        return config.build(config.with_values(cfg.evaluation.threat, {"eps": eps}))

    return curve(
        net, x[:count], y[:count], key=evaluation_key(recipe), num_nets=num_nets, progress=progress,
        attack_at=lambda eps: attack_at(threat_at(eps), eps),
        certifier_at=(lambda eps: certifiers[0](threat_at(eps))) if certifiers else None,
        eps=recipe.evaluation.curve, batch_size=min(recipe.evaluation.batch_size, count),
    )


def evaluation_key(recipe: Recipe) -> Array:
    """Evaluation draws from the recipe's seed, apart from every step of training."""
    return jax.random.fold_in(jax.random.key(recipe.seed), _EVALUATION)


def radius(cfg: fdl.Config) -> float:
    """The `eps` of the evaluation's threat, which attacks scale their steps by. Raises `ConfigError` if it has none."""
    threat = cfg.evaluation.threat
    if not isinstance(getattr(threat, "eps", None), (int, float)):
        name = fdl.get_callable(threat).__name__
        reason = f"needs a radius eps, which attacks scale their steps by; got {name}"
        raise config.ConfigError("evaluation.threat", reason)
    return threat.eps
