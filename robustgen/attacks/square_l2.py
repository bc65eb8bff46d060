"""Square attack in the L2 ball. Andriushchenko et al. 2020 (arXiv 1912.00049), algorithm 3.

Each query moves the change that two windows hold into one of them, together with what the box has cut off, as a bump:
two stacked rectangles of opposite signs, each falling off from its centre (equation 2). Besides those of `square`:
- The windows' norm is per channel, as in the paper and the authors' NumPy code; AutoAttack's sums over channels.
- Which way a bump is stacked is drawn for each row; the official codes draw once for the batch.
- Tiles of the start fill the image as far as whole ones go, centred; the official codes overrun some small ones.
- The change is scaled to the radius rounded inward, and moved points are rounded towards x.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.search import Item, Search
from robustgen.attacks.square import (
    Memory,
    Share,
    coins,
    corner,
    image,
    level,
    offsets,
    random_search,
    sizes,
    window,
    words,
)
from robustgen.core import Array
from robustgen.knobs import Count, NonNegative, checked
from robustgen.threats.geometry import Clip, clipped, norm_slack, round_down

_PIXELS = (1, 2)
_ALL = (1, 2, 3)


@checked
def square_l2(
    *, eps: NonNegative, clip: Clip | None, p_init: Share, num_queries: Count, num_restarts: Count
) -> Search:
    """Paper, algorithm 3, within `clip`. p_init is the share of the pixels that the first windows cover.

    num_queries counts proposals; the start, a grid of bumps of random signs, is one more. AutoAttack's values are
    p_init = 0.8, num_queries = 5000, num_restarts = 1. Sides of windows are odd, and 3 or more.
    """

    settings = {
        "eps": eps, "clip": clip, "p_init": p_init, "num_queries": num_queries, "num_restarts": num_restarts
    }  # fmt: skip
    moves = Moves(bumps, functools.partial(_moved, eps=eps), functools.partial(_member, eps=eps, clip=clip))
    return two_windows(settings, moves)


class Moves(NamedTuple):
    """What differs between norms; images are [B, H, W, C].

    bumps(shape, first, size, across)      [B, H, W], of norm 1 in its window
    moved(change, bump, into, out_of)      the next change: what two windows [B, H, W, 1] hold goes into one of them
    member(x, change)                      the member of the set that is tried for x + change
    """

    bumps: Callable[[tuple[int, ...], Array, Array, Array], Array]
    moved: Callable[[Array, Array, Array, Array], Array]
    member: Callable[[Array, Array], Array]


def two_windows(settings: dict[str, Any], moves: Moves) -> Search:
    """Algorithm 3, whatever the norm, with the knobs in `settings`."""

    def start(item: Item) -> tuple[Array, tuple[()]]:
        x = image(item.x)
        return moves.member(x, _tiles(moves, item, x.shape)), ()

    def propose(item: Item, t: Array, memory: Memory) -> Array:
        x = image(item.x)
        _, height, width, channels = x.shape
        numbers = words(item, t, 5 + -(-channels // 32))
        signs = jnp.where(coins(numbers[:, 5:], channels), 1.0, -1.0)
        size = jnp.asarray(sizes(settings["p_init"], height, width, least=3, odd=True))[level(t)]
        free = jnp.array([[height, width]]) - size
        first, second = corner(numbers[:, :2], free), corner(numbers[:, 2:4], free)
        bump = signs * moves.bumps(x.shape, first, size, numbers[:, 4] >> 31 == 1)[..., None]
        windows = (window(x.shape, at, size) for at in (first, second))
        return moves.member(x, moves.moved(image(memory.x) - x, bump, *windows))

    return random_search("square", settings, start, propose)


def _moved(change: Array, bump: Array, into: Array, out_of: Array, eps: float) -> Array:
    """Algorithm 3, lines 5 to 11: the windows' change, and what is unused of eps, go `into` one of them."""
    energy = change**2
    unused = jnp.maximum(eps**2 - jnp.sum(energy, _ALL, keepdims=True), 0.0) / change.shape[-1]
    held = jnp.sum(jnp.where(into, change, 0.0) ** 2, _PIXELS, keepdims=True)
    available = jnp.sum(jnp.where(into | out_of, energy, 0.0), _PIXELS, keepdims=True) + unused
    mixed = jnp.where(into, bump + change * _inverse_root(held), 0.0)
    scale = jnp.sqrt(available) * _inverse_root(jnp.sum(mixed**2, _PIXELS, keepdims=True))
    return jnp.where(into, mixed * scale, jnp.where(out_of, 0.0, change))


def _member(x: Array, change: Array, eps: float, clip: Clip | None) -> Array:
    """x + change, the change scaled to norm eps, in the box: inside also when checked in float64."""
    radius = round_down(eps, x.dtype) * norm_slack(x)
    moved = clipped(x + change * (radius * _inverse_root(jnp.sum(change**2, _ALL, keepdims=True))), clip)
    return jnp.where(moved == x, x, jnp.nextafter(moved, x))  # the sum rounds outward by less than this


def _inverse_root(energy: Array) -> Array:
    """1 / sqrt(energy), 0 for 0."""
    return jnp.where(energy > 0, jax.lax.rsqrt(jnp.maximum(energy, jnp.finfo(energy.dtype).tiny)), 0.0)


def bumps(shape: tuple[int, ...], first: Array, size: Array, across: Array) -> Array:
    """The paper's eta of norm 1 in the windows at `first` [B, 2] of `size` [B, 2], 0 around them, [B, H, W].

    Its two rectangles lie one upon the other, or side by side where `across` [B]. A window of one row has only one.
    """
    parts, lone = halves(shape, first, size, across, falloff=2)
    first_half, second_half = (h * _inverse_root(jnp.sum(h**2, _PIXELS, keepdims=True)) for h in parts)
    return (first_half - second_half) * jnp.where(lone, 1.0, math.sqrt(0.5))


def halves(
    shape: tuple[int, ...], first: Array, size: Array, across: Array, falloff: int
) -> tuple[list[Array], Array]:
    """The rectangles of `bumps`, each [B, H, W], before they are scaled; and whether there is only one, [B, 1, 1].

    Equation 2 sums 1 / k^falloff from the distance to the centre on, the larger of those along rows and columns.
    """
    across = across[:, None, None]
    ends = offsets(shape, first, size)
    pairs = zip(ends, reversed(ends), strict=True)
    rows, columns = (_ridge(*end, other, max(shape), falloff) for end, (_, other) in pairs)
    inside = rows.inside & columns.inside
    low = jnp.maximum(*(jnp.where(split, a.halved, a.whole) for a, split in ((rows, ~across), (columns, across))))
    rise = jnp.where(inside, jnp.where(across, columns.top, rows.top) - low, 0.0)
    before = jnp.where(across, columns.before, rows.before)
    lone = jnp.where(across, ends[1][1], ends[0][1]) == 1
    return [jnp.where(part, rise, 0.0) for part in (before, ~before)], lone


class _Ridge(NamedTuple):
    """Windows along one axis, [B, H, 1] or [B, 1, W]: sums of equation 2 up to the distance from the centre, of the
    whole and of the half that a coordinate is in; where the latter's sum ends; which half that is."""

    whole: Array
    halved: Array
    top: Array
    before: Array
    inside: Array


def _ridge(offset: Array, length: Array, breadth: Array, longest: int, falloff: int) -> _Ridge:
    sums = jnp.asarray(np.cumsum([0.0, *(1 / k**falloff for k in range(1, longest + 2))]).astype(np.float32))
    half = length // 2
    before = offset < half
    extent = jnp.where(before, half, length - half)
    centre = jnp.where(before, 0, half) + extent // 2
    inside = (offset >= 0) & (offset < length)
    top = sums[jnp.maximum(extent, breadth) // 2 + 1]
    return _Ridge(sums[abs(offset - half)], sums[abs(offset - centre)], top, before, inside)


def _tiles(moves: Moves, item: Item, shape: tuple[int, ...]) -> Array:
    """Bumps on a grid of tiles, a fifth of the shorter side each, [B, H, W, C]; signs and directions are drawn."""
    batch, height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    grid = height // side, width // side
    draw = jax.vmap(lambda key: jax.random.bits(key, (*grid, channels + 1)))(item.key) >> 31 == 1
    square, zero = (2, side, side, 1), jnp.zeros((2, 2), jnp.int32)
    upright, lying = moves.bumps(square, zero, zero + side, jnp.array([False, True]))
    tiles = jnp.where(draw[..., -1:, None, None], lying, upright) * jnp.where(draw[..., :-1, None, None], 1.0, -1.0)
    whole = tiles.transpose(0, 1, 4, 2, 5, 3).reshape(batch, grid[0] * side, grid[1] * side, channels)
    ends = (((n - m) // 2, n - m - (n - m) // 2) for n, m in zip((height, width), whole.shape[1:3], strict=True))
    return jnp.pad(whole, ((0, 0), *ends, (0, 0)))
