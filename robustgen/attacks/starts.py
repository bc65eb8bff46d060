"""Where an attack starts: `Start = (threat, x, keys [B]) -> x0`, shaped like x."""

from collections.abc import Callable
from typing import Protocol

import jax

from robustgen.core import Array, Key, Threat
from robustgen.knobs import NonNegative, Positive, checked


class Start(Protocol):
    """A first point for an attack on `x`, from per-example `keys` [B]."""

    def __call__(self, threat: Threat, x: Array, keys: Key) -> Array: ...


def zero(threat: Threat, x: Array, keys: Key) -> Array:
    """x itself."""
    del threat, keys
    return x


def uniform(threat: Threat, x: Array, keys: Key) -> Array:
    """A random member of the threat set (uniform in the ball, then within the box)."""
    return threat.sample(x, keys)


@checked
def gaussian(*, scale: Positive) -> Start:
    """x + scale * N(0, 1), not projected: TRADES' start, scale 0.001 (its KL objective has zero gradient at x)."""

    def start(threat: Threat, x: Array, keys: Key) -> Array:
        del threat
        return x + scale * _normal(x, keys)

    return start


@checked
def random_sign(*, step_size: Positive) -> Start:
    """x + step_size * sign(N(0, 1)), projected: the first step of R+FGSM (Tramer et al. 2018, arXiv 1705.07204)."""

    def start(threat: Threat, x: Array, keys: Key) -> Array:
        return threat.project(x, x + threat.ascend(_normal(x, keys), step_size))

    return start


@checked
def edge(direction: Callable[[Key, Array], Array], eps: NonNegative) -> Start:
    """x + eps * direction(keys [B], x), projected: APGD's start.

    The directions are random and of size 1, as those of `norms.linf.direction`.
    """
    return lambda threat, x, keys: threat.project(x, x + eps * direction(keys, x))


def _normal(x: Array, keys: Key) -> Array:
    """N(0, 1) noise shaped like x, drawn from per-example `keys` [B]."""
    return jax.vmap(lambda key, row: jax.random.normal(key, row.shape, row.dtype))(keys, x)
