"""Square attack in the Linf ball: random search that needs no gradient. Andriushchenko et al. 2020 (arXiv 1912.00049).

Each query paints one square window, per channel with one bound of the threat set, and is kept where the margin falls.
Deviations from the official codes, for every norm:
- Each row draws windows of its own, as the paper and the authors' NumPy code do; AutoAttack draws one for the batch.
- Windows reach the last row and column, as in the paper (algorithm 2); in both codes none but of full height does.
- A window that does not fit the shorter side takes all of it, and more of the longer side for the same area; flat
  inputs [B, d] are images of d rows and one column. The official codes take images with H = W only.
The schedule of sizes is the one of AutoAttack: in iterations, not rescaled to the number of queries.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.objectives import margin
from robustgen.attacks.search import Item, Search, Tried
from robustgen.core import Array, LogitsFn, PyTree
from robustgen.knobs import Count, NonNegative, Range, checked
from robustgen.threats import linf
from robustgen.threats.geometry import Clip, per_example

Share = Annotated[float, Range(0, 1, open_low=True)]
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these proposals, counted from 0, the share of the pixels that a window covers is halved."""


class Memory(NamedTuple):
    """The best point so far x [B, ...], how sure the net is of y there [B] (infinite before the first evaluation), and
    what `start` lays by."""

    x: Array
    loss: Array
    fixed: PyTree


Propose = Callable[[Item, Array, Memory], Array]
"""(item, t [B] from 1, memory) -> the point to try next [B, ...], a member of the threat set."""


@checked
def square_linf(
    *, eps: NonNegative, clip: Clip | None, p_init: Share, num_queries: Count, num_restarts: Count
) -> Search:
    """Paper, algorithm 2, within `clip`. p_init is the share of the pixels that the first windows cover.

    num_queries counts proposals; the start, vertical stripes of +-eps per column and channel, is one more, as in
    AutoAttack, whose values are p_init = 0.8, num_queries = 5000, num_restarts = 1.
    """
    bounds = linf(eps, clip).bounds

    def start(item: Item) -> tuple[Array, tuple[Array, Array]]:
        lower, upper = (image(bound) for bound in bounds(item.x))
        _, _, width, channels = lower.shape
        up = jax.vmap(lambda key: jax.random.bernoulli(key, shape=(1, width, channels)))(item.key)
        return jnp.where(up, upper, lower), (lower, upper)

    def propose(item: Item, t: Array, memory: Memory) -> Array:
        best, (lower, upper) = image(memory.x), memory.fixed
        _, height, width, channels = best.shape
        numbers = words(item, t, 2 + -(-channels // 32))
        size = jnp.asarray(sizes(p_init, height, width))[level(t)]
        painted = window(best.shape, corner(numbers[:, :2], jnp.array([[height, width]]) - size), size)
        return jnp.where(painted, jnp.where(coins(numbers[:, 2:], channels), upper, lower), best)

    settings = {
        "eps": eps, "clip": clip, "p_init": p_init, "num_queries": num_queries, "num_restarts": num_restarts
    }  # fmt: skip
    return random_search("square", settings, start, propose)


def random_search(
    name: str, settings: dict[str, Any], start: Callable[[Item], tuple[Array, PyTree]], propose: Propose
) -> Search:
    """Keeps a proposal where it lowers logit_y - max other logit. The first evaluation is of `start`.

    `start` gives a member of the set, and what `propose` wants to find in `memory.fixed`. The official rule also keeps
    whatever is misclassified; since it stops there, this is the same, and afterwards the margin goes on being lowered.
    """

    def begin(item: Item) -> Memory:
        x, fixed = start(item)
        return Memory(x.reshape(item.x.shape), jnp.full(item.y.shape, jnp.inf, jnp.float32), fixed)

    def step(logits_fn: LogitsFn, item: Item, t: Array, memory: Memory) -> tuple[Memory, Tried]:
        proposal = propose(item, t, memory).reshape(item.x.shape)
        x = jnp.where(per_example(t == 0, proposal), memory.x, proposal)
        logits = logits_fn(x)
        loss = -margin(logits, item.y)
        falls = loss < memory.loss
        kept = Memory(
            jnp.where(per_example(falls, x), x, memory.x), jnp.where(falls, loss, memory.loss), memory.fixed
        )
        return kept, Tried(x, logits, jnp.ones(falls.shape, bool))

    num_steps, num_restarts = settings["num_queries"] + 1, settings["num_restarts"]
    return Search(name, settings, begin, step, num_steps, 0, num_restarts, forwards=1, backwards=0)


def image(x: Array) -> Array:
    """x [B, H, W, C] as it is; [B, H, W] with one channel, [B, d] as d rows of one pixel."""
    if not 2 <= x.ndim <= 4:
        raise ValueError(f"Square attacks images [B, H, W, C] or [B, H, W] and flat inputs [B, d]; got {x.shape}")
    return x.reshape(x.shape + (1,) * (4 - x.ndim))


def sizes(p_init: float, height: int, width: int, least: int = 1, odd: bool = False) -> np.ndarray:
    """(rows, columns) of the windows between halvings, [10, 2]: squares of side round(sqrt(p H W)), at least `least`;
    `odd` adds 1 to even sides."""
    found = []
    for halved in range(len(HALVINGS) + 1):
        area = p_init / 2**halved * height * width
        side = max(round(math.sqrt(area)), least)
        side += odd and side % 2 == 0
        short = min(side, height, width)
        long = side if short == side else max(round(area / short), least)
        rows, columns = (long, short) if height >= width else (short, long)
        found.append((min(rows, height), min(columns, width)))
    return np.array(found, np.int32)


def level(t: Array) -> Array:
    """How often the share has been halved at step t [B]; proposals count from step 1."""
    return sum((t - 1 > after).astype(jnp.int32) for after in HALVINGS)


def words(item: Item, t: Array, num: int) -> Array:
    """`num` random uint32 for each row [B, num], of its key and step alone."""
    return jax.vmap(lambda key, t: jax.random.bits(jax.random.fold_in(key, t), (num,)))(item.key, t)


def coins(numbers: Array, channels: int) -> Array:
    """A fair coin for each channel, [B, 1, 1, C], out of the bits of numbers [B, n]."""
    channel = jnp.arange(channels, dtype=jnp.uint32)
    bits = numbers[:, channel // 32] >> (channel % 32).reshape(1, -1)
    return (bits & 1 == 1)[:, None, None, :]


def corner(numbers: Array, free: Array) -> Array:
    """Uniform in {0, ..., free} out of one uint32 each."""
    share = (numbers >> 8).astype(jnp.float32) / 2**24
    return jnp.minimum((share * (free + 1)).astype(jnp.int32), free)


def window(shape: tuple[int, ...], first: Array, size: Array) -> Array:
    """Mask [B, H, W, 1] of the pixels that the windows at `first` [B, 2] of `size` [B, 2] cover."""
    (rows, height), (columns, width) = offsets(shape, first, size)
    return ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))[..., None]


def offsets(shape: tuple[int, ...], first: Array, size: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """For rows and columns: distance from the window's first, [B, H, 1] or [B, 1, W], and its length [B, 1, 1]."""
    first, size = first[:, :, None, None], size[:, :, None, None]
    rows, columns = jnp.arange(shape[1]).reshape(1, -1, 1), jnp.arange(shape[2]).reshape(1, 1, -1)
    return (rows - first[:, 0], size[:, 0]), (columns - first[:, 1], size[:, 1])
