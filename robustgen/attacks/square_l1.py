"""Square attack in the L1 ball. Croce & Hein 2021 (arXiv 2103.01208), section 4; AutoAttack's `square.py`.

As `square_l2`, with L1 norms in place of L2: bumps fall off with 1 / k^4, what is moved into a window is multiplied by
the number of channels, and the outcome is projected onto the L1 ball and the box, not scaled to the radius. Deviations:
those of `square` and `square_l2` on windows and drawing; the projection is rounded inward, where that code shrinks the
radius by 10^-6.
"""

import functools

import jax.numpy as jnp

from robustgen.attacks.search import Search
from robustgen.attacks.square import Share
from robustgen.attacks.square_l2 import Moves, halves, two_windows
from robustgen.core import Array
from robustgen.knobs import Count, NonNegative, checked
from robustgen.threats import l1
from robustgen.threats.geometry import Clip

_PIXELS = (1, 2)
_ALL = (1, 2, 3)


@checked
def square_l1(
    *, eps: NonNegative, clip: Clip | None, p_init: Share, num_queries: Count, num_restarts: Count
) -> Search:
    """Within `clip`. p_init is the share of the pixels that the first windows cover.

    num_queries counts proposals; the start, a grid of bumps of L1 norm 1 and random signs, projected, is one more.
    AutoAttack's values are p_init = 0.8, num_queries = 5000, num_restarts = 1. Sides of windows are odd, and 3 or more.
    """
    settings = {
        "eps": eps, "clip": clip, "p_init": p_init, "num_queries": num_queries, "num_restarts": num_restarts
    }  # fmt: skip
    project = l1(eps, clip).project
    moves = Moves(bumps, functools.partial(_moved, eps=eps), lambda x, change: project(x, x + change))
    return two_windows(settings, moves)


def bumps(shape: tuple[int, ...], first: Array, size: Array, across: Array) -> Array:
    """As `square_l2.bumps`, of L1 norm 1."""
    parts, lone = halves(shape, first, size, across, falloff=4)
    first_half, second_half = (h * _inverse(jnp.sum(h, _PIXELS, keepdims=True)) for h in parts)
    return (first_half - second_half) * jnp.where(lone, 1.0, 0.5)


def _moved(change: Array, bump: Array, into: Array, out_of: Array, eps: float) -> Array:
    """The windows' change, and what is unused of eps, go `into` one of them."""
    size, channels = jnp.abs(change), change.shape[-1]
    unused = jnp.maximum(eps - jnp.sum(size, _ALL, keepdims=True), 0.0) / channels
    held = jnp.sum(jnp.where(into, size, 0.0), _PIXELS, keepdims=True)
    available = (jnp.sum(jnp.where(into | out_of, size, 0.0), _PIXELS, keepdims=True) + unused) * channels
    mixed = jnp.where(into, bump + change * _inverse(held), 0.0)
    scale = available * _inverse(jnp.sum(jnp.abs(mixed), _PIXELS, keepdims=True))
    return jnp.where(into, mixed * scale, jnp.where(out_of, 0.0, change))


def _inverse(total: Array) -> Array:
    """1 / total, 0 for 0."""
    return jnp.where(total > 0, 1.0 / jnp.maximum(total, jnp.finfo(total.dtype).tiny), 0.0)
