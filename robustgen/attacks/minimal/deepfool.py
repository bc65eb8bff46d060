"""DeepFool: to the nearest boundary of the linearised model, again and again."""

from typing import Annotated

import jax
import jax.numpy as jnp

from robustgen.attacks.minimal.norms import L2
from robustgen.attacks.minimal.search import MinimalAttack
from robustgen.attacks.objectives import margin
from robustgen.core import Array, Key, LogitsFn
from robustgen.knobs import Count, NonNegative, Range, checked
from robustgen.threats.geometry import Clip, limits, per_example, unit

Classes = Annotated[int, Range(2)]


@checked
def deepfool(
    *, num_steps: Count, overshoot: NonNegative, num_classes: Classes, clip: Clip | None = (0.0, 1.0)
) -> MinimalAttack:
    """Least L2. Moosavi-Dezfooli et al. 2016 (arXiv 1511.04599), algorithm 2, with the label y for the prediction.

    Each step adds the shortest way to a boundary of the linearised model, of those between y and the num_classes - 1
    largest other logits at x, and looks at x plus 1 + overshoot times the sum; an example stops where it is broken. So
    what is returned is the first point found, not the nearest of many. One gradient for each class and step.

    Published: num_steps 50, overshoot 0.02, num_classes 10. As in the authors' code every step is 1e-4 longer; that
    code knows no box (clip=None), with `clip` the points looked at are clipped to it.
    """

    def attack(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array:
        del key
        low, high = limits(x, clip)
        clean_logits = logits_fn(x)
        rivals = _rivals(clean_logits, y, min(num_classes, clean_logits.shape[-1]) - 1)

        def going(carry: tuple) -> Array:
            index, _, _, broken = carry
            return (index < num_steps) & ~jnp.all(broken)

        def step(carry: tuple) -> tuple:
            index, total, z, broken = carry
            total = jnp.where(per_example(broken, x), total, total + _shortest(logits_fn, z, y, rivals))
            z = jnp.where(per_example(broken, x), z, jnp.clip(x + (1 + overshoot) * total, low, high))
            return index + 1, total, z, margin(logits_fn(z), y) > 0

        begin = jnp.int32(0), jnp.zeros_like(x), x, margin(clean_logits, y) > 0
        _, _, z, broken = jax.lax.while_loop(going, step, begin)
        return jnp.where(per_example(broken, x), z, x)

    return attack


def _rivals(logits: Array, y: Array, num: int) -> Array:
    """The classes of the `num` largest logits but that of y, [B, num]."""
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return jax.lax.top_k(others, num)[1]


def _shortest(logits_fn: LogitsFn, z: Array, y: Array, rivals: Array) -> Array:
    """The shortest way from z to where the linearised logit of a rival reaches that of y, shaped like z."""
    logits, pull = jax.vjp(logits_fn, z)
    classes = logits.shape[-1]
    against = jax.nn.one_hot(rivals.T, classes, dtype=logits.dtype) - jax.nn.one_hot(y, classes, dtype=logits.dtype)
    gaps = jnp.abs(jnp.sum(against * logits, -1))  # [rivals, B]
    gradients = jnp.nan_to_num(jax.vmap(lambda weights: pull(weights)[0])(against))
    ways = jnp.nan_to_num(gaps) / jnp.maximum(jax.vmap(L2.size)(gradients), 1e-12)
    nearest = jnp.argmin(ways, 0)
    direction = jax.vmap(lambda rows, index: rows[index], (1, 0))(gradients, nearest)
    return unit(direction) * per_example(jnp.min(ways, 0) + 1e-4, z)
