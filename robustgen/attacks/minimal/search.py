"""What minimal-norm attacks share: their type, the nearest misclassified point so far, annealing."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import margin
from robustgen.core import Array, Key, LogitsFn, Objective
from robustgen.threats.geometry import per_example


class MinimalAttack(Protocol):
    """Looks for the misclassified point nearest to x, in the norm of the attack.

    x [B, ...] inside the box of the attack, y [B] int32; `key` is one key, or per-example keys [B]. Returns x_adv,
    shaped like x: inside the box and misclassified, or x itself where x is misclassified already or nothing was found.
    No row depends on another.
    """

    def __call__(self, logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array: ...


def clean(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array:
    """x itself: the attack that finds nothing, and the start of those that start from the input."""
    del logits_fn, y, key
    return x


def distances(size: Callable[[Array], Array], logits_fn: LogitsFn, x: Array, y: Array, x_adv: Array) -> Array:
    """[B]: 0 where x is misclassified, infinite where not even x_adv is, else size(x_adv - x).

    `size` is that of a `norms.Norm`. A point counts as misclassified where another logit is the largest, ties excluded.
    """
    broken = jnp.where(margin(logits_fn(x_adv), y) > 0, size(x_adv - x), jnp.inf)
    return jnp.where(margin(logits_fn(x), y) > 0, 0.0, broken)


class Nearest(NamedTuple):
    """The nearest point found so far of each example: x [B, ...], and its `distance` [B], infinite where none is."""

    x: Array
    distance: Array


def nothing_yet(x: Array) -> Nearest:
    """Before the search."""
    return Nearest(x, jnp.full(x.shape[0], jnp.inf, x.dtype))


def nearer(best: Nearest, x: Array, distance: Array, valid: Array) -> Nearest:
    """Per example, `x` at `distance` [B] where it is `valid` [B] and strictly nearer, else `best`."""
    improves = valid & (distance < best.distance)
    return Nearest(jnp.where(per_example(improves, x), x, best.x), jnp.where(improves, distance, best.distance))


def look(objective: Objective, logits_fn: LogitsFn, z: Array, y: Array) -> tuple[Array, Array, Array]:
    """(objective [B], margin [B], gradient of the objective, shaped like z). A gradient that is NaN counts as zero."""

    def total(z: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(z)
        values = objective(logits, y)
        return jnp.sum(values), (values, margin(logits, y))

    gradient, (values, margins) = jax.grad(total, has_aux=True)(z)
    return values, margins, jnp.nan_to_num(gradient)


def annealed(first: Array | float, last: Array | float, step: Array, num_steps: int) -> Array:
    """Half a cosine from `first` at step 0 to `last` at step num_steps."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * step / num_steps)) / 2

