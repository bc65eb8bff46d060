"""Is an evaluation of a config to be believed? The checks of `robustgen.validity` on its net, set and attack."""

from collections.abc import Callable
from typing import Any

import fiddle as fdl

from robustgen import config
from robustgen.attacks.square import square_linf
from robustgen.attacks.square_l1 import square_l1
from robustgen.attacks.square_l2 import square_l2
from robustgen.core import Array, Net, Threat
from robustgen.data.source import scaled
from robustgen.evaluation.validity import Finding
from robustgen.measure import evaluation_key, radius
from robustgen.recipe import Recipe
from robustgen.threats import l1, l2, linf
from robustgen.validity import Evaluated, square_at, thorough, thorough_l1, validity

NUM_STEPS, NUM_TARGETS, NUM_QUERIES, NUM_INNER = 50, 3, 1000, 999
"""Of APGD and APGD-T, of Square, and of the binarization test: minutes for a large net, not hours."""

_SQUARE = {linf: square_linf, l2: square_l2, l1: square_l1}


def examine(cfg: fdl.Config, recipe: Recipe, net: Net, evaluated: Evaluated, *, num_examples: int) -> list[Finding]:
    """The findings on the first `num_examples` of the test split, `evaluated` being the attack to be believed.

    Square is held against it where there is one for the config's set. Raises `ConfigError` as `radius` does.
    """
    x, y = scaled(recipe.data.load("test"), recipe.data.scale)
    threat, square = cfg.evaluation.threat, _SQUARE.get(fdl.get_callable(cfg.evaluation.threat))
    clip = _clip(threat)

    def threat_at(eps: Array) -> Threat:
        return config.build(config.with_values(threat, {"eps": eps}))

    return validity(
        net, x[:num_examples], y[:num_examples], threat_at=threat_at, eps=radius(cfg), evaluated=evaluated,
        black_box_at=square and square_at(square, clip=clip, num_queries=NUM_QUERIES), num_inner=NUM_INNER,
        key=evaluation_key(recipe),
    )  # fmt: skip


def first_attack(cfg: fdl.Config, recipe: Recipe) -> Evaluated:
    """The config's first attack, which its tables are of; APGD-T is what might break more."""
    name, attack_at = next(iter(recipe.evaluation.attacks.items()))
    settings = {**_knobs(cfg.evaluation.attacks[name]), "eps": radius(cfg)}
    return Evaluated(attack_at, autoattack_in_short(cfg).stronger_at, settings)


def autoattack_in_short(cfg: fdl.Config) -> Evaluated:
    """What stands for AutoAttack: its attacks by gradient, with fewer steps and targets."""
    knobs = dict(eps=radius(cfg), num_targets=NUM_TARGETS)
    if fdl.get_callable(cfg.evaluation.threat) is l1:
        return thorough_l1(clip=_clip(cfg.evaluation.threat), num_steps=2 * NUM_STEPS, **knobs)
    return thorough(num_steps=NUM_STEPS, **knobs)


def _clip(threat: fdl.Config) -> Any:
    return fdl.ordered_arguments(threat, include_defaults=True).get("clip")


def _knobs(attack: fdl.Config | Callable) -> dict[str, Any]:
    """What a config says of an attack; nothing where it is a function as it stands."""
    return dict(fdl.ordered_arguments(attack, include_defaults=True)) if isinstance(attack, fdl.Buildable) else {}
