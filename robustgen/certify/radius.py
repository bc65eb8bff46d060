"""The largest radius at which a certifier says yes, for each example, by bisection in one compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.core import VERIFIED, Array, Certifier, Key, LogitsFn
from robustgen.knobs import Count, Positive, checked


@checked
def largest_radius(
    certifier_at: Callable[[Array], Certifier],
    logits_fn: LogitsFn,
    x: Array,
    y: Array,
    key: Key,
    *,
    largest: Positive,
    num_steps: Count,
) -> Array:
    """Radii [B] that are certified, each within largest / 2 ** num_steps of one that is not; at most `largest`.

    certifier_at(eps) -> Certifier: any factory over its radius, such as `lambda eps: crown(threats.linf(eps))`; eps is
    a tracer. Each radius was itself certified, so the answer is sound even where a certifier is not monotone in eps
    (then a larger one may exist). 0 where nothing was; examples that are misclassified at x among them. Every example
    is asked `num_steps` + 1 times, alone, under one `jax.vmap`.
    """

    def verified(eps: Array) -> Array:
        def alone(x: Array, y: Array, eps: Array) -> Array:
            return certifier_at(eps)(logits_fn, x[None], y[None], key).status[0] == VERIFIED

        return jax.vmap(alone)(x, y, eps)

    def step(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        proved = verified(middle)
        return jnp.where(proved, middle, low), jnp.where(proved, high, middle)

    top = jnp.full(x.shape[:1], largest, jnp.result_type(float))
    whole = verified(top)
    low, _ = jax.lax.fori_loop(0, num_steps, step, (jnp.where(whole, top, 0.0), top))
    return low
