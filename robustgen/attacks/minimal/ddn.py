"""DDN: the direction by gradient steps, the norm by a rule of its own."""

from typing import Annotated

import jax
import jax.numpy as jnp

from robustgen.attacks.minimal.norms import L2
from robustgen.attacks.minimal.search import MinimalAttack, annealed, look, nearer, nothing_yet
from robustgen.attacks.objectives import cross_entropy
from robustgen.core import Array, Key, LogitsFn
from robustgen.knobs import Count, Decay, KnobError, Positive, Range, checked
from robustgen.spread import example_keys
from robustgen.threats.geometry import Clip, limits, per_example, unit

Levels = Annotated[int, Range(2)]


@checked
def ddn(
    *,
    num_steps: Count,
    step_size: Positive,
    final_step_size: Positive,
    init_eps: Positive,
    gamma: Decay,
    levels: Levels | None,
    clip: Clip | None = (0.0, 1.0),
) -> MinimalAttack:
    """Decoupled direction and norm, least L2. Rony et al. 2019 (arXiv 1811.09600), algorithm 1.

    Each step goes `step_size` (annealed to `final_step_size`) along the unit gradient of cross-entropy, then onto the
    sphere of radius eps, which shrinks by `gamma` where the point was misclassified and grows by it elsewhere.
    `levels`: points are rounded to that many equally spaced values of the box, so what is returned is an image; None
    for no rounding.

    Published: num_steps 100 (or 300, 1000), step_size 1, final_step_size 0.01, init_eps 1, gamma 0.05, levels 256, for
    inputs in [0, 1]. As in the official code (fast_adversarial), the radius never exceeds the furthest corner of the
    box, a zero gradient is replaced by N(0, 1) noise, and the last iterate is not looked at (num_steps gradients).
    """
    if levels is not None and clip is None:
        raise KnobError("levels", f"needs a box to divide: give clip, or levels=None; got {levels}")

    def attack(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array:
        keys, (low, high) = example_keys(key, x.shape[0]), limits(x, clip)
        furthest = L2.size(jnp.maximum(x - low, high - x))

        def step(index: Array, carry: tuple) -> tuple:
            z, eps, best = carry
            _, margins, gradient = look(cross_entropy, logits_fn, z, y)
            broken = margins > 0
            best = nearer(best, z, L2.size(z - x), broken)
            rate = annealed(step_size, final_step_size, index, num_steps)
            delta = z - x + rate * _direction(gradient, keys, index)
            eps = jnp.minimum(jnp.where(broken, eps * (1 - gamma), eps * (1 + gamma)), furthest)
            scaled = delta * per_example(eps / jnp.maximum(L2.size(delta), jnp.finfo(x.dtype).tiny), x)
            return _rounded(jnp.clip(x + scaled, low, high), low, high, levels), eps, best

        begin = x, jnp.full(x.shape[0], init_eps, x.dtype), nothing_yet(x)
        return jax.lax.fori_loop(0, num_steps, step, begin)[2].x

    return attack


def _direction(gradient: Array, keys: Key, index: Array) -> Array:
    """The unit gradient, or noise where it is zero."""
    zero = jnp.all(gradient == 0, tuple(range(1, gradient.ndim)))

    def noise(key: Key, row: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, index), row.shape, row.dtype)

    def replaced() -> Array:
        return jnp.where(per_example(zero, gradient), jax.vmap(noise)(keys, gradient), unit(gradient))

    return jax.lax.cond(jnp.any(zero), replaced, lambda: unit(gradient))


def _rounded(z: Array, low: Array, high: Array, levels: int | None) -> Array:
    if levels is None:
        return z
    return jnp.clip(low + jnp.round((z - low) / (high - low) * (levels - 1)) / (levels - 1) * (high - low), low, high)
