"""What all certified losses share: the bound as a knob, and the net that it is taken of."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.core import Array, LogitsFn, Net, Threat

Bounds = Callable[[LogitsFn, Array, Array, Threat], Array]
"""(logits_fn, x [B, ...], y [B], threat) -> lower bounds [B, K] of logit_y - logit_k over the set, 0 at k = y, that can
be differentiated in what `logits_fn` holds: `certify.margins_lower` (IBP, the last layer elided), ..."""


def blend(first: Bounds, second: Bounds, weight: float | Array) -> Bounds:
    """weight * first + (1 - weight) * second, itself a lower bound for a `weight` from 0 to 1.

    Where `weight` is 0 the first, and where it is 1 the second, is not computed: a ramp pays for both only while it
    is under way (under `vmap` both always are).
    """

    def bounds(logits_fn: LogitsFn, x: Array, y: Array, threat: Threat) -> Array:
        def mixed() -> Array:
            return weight * first(logits_fn, x, y, threat) + (1 - weight) * second(logits_fn, x, y, threat)

        case = jnp.where(jnp.asarray(weight) <= 0, 1, jnp.where(jnp.asarray(weight) >= 1, 0, 2))
        alone = [lambda: first(logits_fn, x, y, threat), lambda: second(logits_fn, x, y, threat)]
        return jax.lax.switch(case, [*alone, mixed])

    return bounds


def bounded(net: Net) -> Net:
    """The net that bounds are taken of: batch statistics are constants there, those that will certify it later."""
    return dataclasses.replace(net, state=jax.lax.stop_gradient(net.state))


def proved(margins: Array, y: Array) -> Array:
    """Fraction of examples whose margin to every other class is proved positive; margins [B, K], y [B]."""
    others = jnp.arange(margins.shape[1]) != y[:, None]
    return jnp.mean(jnp.all((margins > 0) | ~others, 1), dtype=jnp.float32)
