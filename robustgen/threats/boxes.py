"""Threat sets that are boxes: everything about them is per feature and exact."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, Threat
from robustgen.knobs import KnobError, NonNegative, checked
from robustgen.threats.geometry import Clip, box_support, clipped, round_down


@checked
def linf(eps: NonNegative, clip: Clip | None = (0.0, 1.0)) -> Threat:
    """{x': |x' - x| <= eps in every coordinate, clip[0] <= x' <= clip[1]}; `clip=None` for unbounded inputs.

    `eps` is a number, or an array that broadcasts to x [B, ...]: a radius for each feature (0 for one that an adversary
    cannot touch) or for each example.
    """

    def bounds(x: Array) -> tuple[Array, Array]:
        radius = jnp.broadcast_to(round_down(eps, x.dtype), x.shape)
        lower = jnp.minimum(jnp.nextafter(x - radius, jnp.inf), x)
        upper = jnp.maximum(jnp.nextafter(x + radius, -jnp.inf), x)
        return clipped(lower, clip), clipped(upper, clip)

    return _from_bounds(bounds)


@checked
def box(lower: Array, upper: Array) -> Threat:
    """{x': lower <= x' <= upper}, whatever x is: one set for all examples, or per-feature limits [...] that broadcast.

    Raises `KnobError` where a concrete lower bound exceeds the upper.
    """
    if not isinstance(lower, jax.core.Tracer) and not isinstance(upper, jax.core.Tracer):
        if not np.all(np.asarray(lower) <= np.asarray(upper)):
            raise KnobError("lower", "must not exceed upper in any feature")

    def bounds(x: Array) -> tuple[Array, Array]:
        return jnp.broadcast_to(jnp.asarray(lower, x.dtype), x.shape), jnp.broadcast_to(
            jnp.asarray(upper, x.dtype), x.shape
        )

    return _from_bounds(bounds)


def _from_bounds(bounds: Callable[[Array], tuple[Array, Array]]) -> Threat:
    """The threat of a box around x, in which everything is per coordinate and exact."""

    def sample(x: Array, keys: Key) -> Array:
        lower, upper = bounds(x)
        uniform = jax.vmap(lambda key, row: jax.random.uniform(key, row.shape, row.dtype))(keys, x)
        return jnp.clip(lower + uniform * (upper - lower), lower, upper)

    return Threat(
        sample=sample,
        project=lambda x, x_adv: jnp.clip(x_adv, *bounds(x)),
        ascend=lambda gradient, step: step * jnp.sign(gradient),
        bounds=bounds,
        support=lambda A, x: box_support(A, *bounds(x)),
        is_box=True,
    )
