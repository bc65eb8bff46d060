"""What a config describes: the parts of one experiment, with nothing left to choose.

A file in `configs/` writes `fdl.Config(recipe, ...)`. Every field is a built object of a core type; `loss` and
`optimizer` may hold schedules, which are resolved at each traced step.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import flax.linen as nn
import optax

from robustgen.core import Attack, Certifier, Loss, Threat
from robustgen.data.augment import Augment
from robustgen.data.source import Source
from robustgen.knobs import Count, Decay, KnobError, NonNegative, Positive, Range, checked

AttackAt = Callable[[Threat, float], Attack]
"""(threat, eps) -> Attack: how an evaluation attacks at any radius, step sizes following the radius."""

CertifierAt = Callable[[Threat], Certifier]

Seed = Annotated[int, Range(0, 2**31 - 1)]
"""JAX drops what is beyond 32 bits: larger seeds would repeat smaller ones."""


class Training(NamedTuple):
    """How long and on what batches. See `training`."""

    batch_size: int
    num_epochs: float
    ema_decay: float
    augment: Augment
    log_every: int
    validate_every: float
    validate_with: AttackAt


class Evaluation(NamedTuple):
    """What is measured, and how strongly. See `evaluation`."""

    threat: Threat
    attacks: Mapping[str, AttackAt]
    certifiers: Mapping[str, CertifierAt]
    curve: tuple[float, ...]
    num_examples: int | None
    batch_size: int


class Recipe(NamedTuple):
    """One experiment. See `recipe`."""

    data: Source
    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation
    training: Training
    evaluation: Evaluation
    seed: int


@checked
def training(
    *,
    batch_size: Count,
    num_epochs: Positive,
    augment: Augment,
    validate_with: AttackAt,
    validate_every: Positive = 1.0,
    ema_decay: Decay = 0.0,
    log_every: Count = 50,
) -> Training:
    """`num_epochs` passes in batches of `batch_size`.

    Args:
      ema_decay: of the average of parameters and batch statistics that is evaluated; 0 for none.
      log_every: steps per row of metrics.jsonl, and the longest that a signal waits.
      validate_with: the attack that robust accuracy on the validation split is watched with; threat as in evaluation.
      validate_every: epochs between these measurements.
    """
    return Training(batch_size, num_epochs, ema_decay, augment, log_every, validate_every, validate_with)


@checked
def evaluation(
    *,
    threat: Threat,
    attacks: Mapping[str, AttackAt],
    certifiers: Mapping[str, CertifierAt],
    curve: tuple[NonNegative, ...],
    batch_size: Count,
    num_examples: Count | None = None,
) -> Evaluation:
    """Robust accuracy under each of `attacks` (one or more), certified accuracy by each of `certifiers`.

    Args:
      curve: ascending radii of the robust-against-eps curve, in the threat's units; () for none.
      num_examples: how many of the test split, from its front; None for all.
    """
    if not attacks:
        raise KnobError("attacks", "must have an entry, as in {'PGD-50x10': ...}: robust accuracy is under some attack")
    if list(curve) != sorted(set(curve)):
        raise KnobError("curve", f"must ascend; got {curve}")
    return Evaluation(threat, dict(attacks), dict(certifiers), tuple(curve), num_examples, batch_size)


@checked
def recipe(
    *,
    data: Source,
    model: nn.Module,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    training: Training,
    evaluation: Evaluation,
    seed: Seed,
) -> Recipe:
    """The root of a config. `seed` alone decides initialisation, data order, augmentation and attacks."""
    return Recipe(data, model, loss, optimizer, training, evaluation, seed)
