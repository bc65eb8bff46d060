"""Rotations and translations of images: a threat that is no ball, searched whole.

Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness" (arXiv 1712.02779). The attack returns an `Attack`
like every other and takes no `Threat`: the images it may return are those on its own grid, so `Threat.project` would
have nothing to do. They are images still: no pixel leaves the values that the image and zero span.
"""

import jax
import jax.numpy as jnp

from robustgen.attacks.pgd import Best, better
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree
from robustgen.knobs import Count, NonNegative, checked
from robustgen.spread import example_keys


@checked
def spatial(
    *,
    max_rotation: NonNegative,
    max_shift: NonNegative,
    num_rotations: Count,
    num_shifts: Count,
    judge: Objective,
    group_size: Count = 1,
) -> Attack:
    """The worst by `judge` of x and num_shifts^2 * num_rotations rotated and shifted copies; exact for this grid.

    Angles are evenly spaced in [-max_rotation, max_rotation] degrees, shifts in [-max_shift, max_shift] pixels along
    each axis; the official code takes 30 degrees, 3 pixels, 31 angles and 5 shifts on CIFAR-10: 775 forward passes.
    `group_size` copies of the batch go through the model at once, for devices that one batch does not fill.

    The official code prefers a misclassified copy and then the largest cross-entropy; `judge=objectives.margin` prefers
    the most misclassified. For the random worst-of-k of the same paper see `spatial_random`.
    """

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        del key

        def value(move: Array) -> Array:
            return judge(logits_fn(rotate_shift(x, move)), target)

        moves = _grid(_evenly(max_shift, num_shifts), _evenly(max_rotation, num_rotations))
        values = jax.lax.map(value, moves, batch_size=min(group_size, len(moves)))
        worst = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values), 0)
        found = Best(rotate_shift(x, moves[worst]), jnp.max(values, 0, where=~jnp.isnan(values), initial=-jnp.inf))
        return better(Best(x, judge(logits_fn(x), target)), found).x

    return attack


@checked
def spatial_random(
    *, max_rotation: NonNegative, max_shift: NonNegative, num_tries: Count, judge: Objective
) -> Attack:
    """The worst by `judge` of x and `num_tries` copies moved at random, uniformly within the limits of `spatial`: the
    paper's worst-of-k, for evaluation and, with k = 10, in training."""

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])
        limits = jnp.stack([jnp.asarray(limit, x.dtype) for limit in (max_shift, max_shift, max_rotation)])

        def attempt(index: Array, best: Best) -> Best:
            draw = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, index), (3,), x.dtype, -1.0, 1.0))(keys)
            moved = rotate_shift(x, draw * limits[None])
            return better(best, Best(moved, judge(logits_fn(moved), target)))

        return jax.lax.fori_loop(0, num_tries, attempt, Best(x, judge(logits_fn(x), target))).x

    return attack


def rotate_shift(x: Array, move: Array) -> Array:
    """Images x [B, H, W, C] turned about their centre and then shifted, bilinear, black beyond the edges.

    `move` is (right, down, angle), [3] for all or [B, 3]: pixels, pixels, degrees counter-clockwise as one looks at it.
    One interpolation, as the paper writes the motion; the official code interpolates twice, first the rotated and
    then the shifted image, which blurs at half pixels. Raises `ValueError` where x is not of images.
    """
    if x.ndim != 4:
        raise ValueError(f"rotations and shifts take images [B, H, W, C]; got shape {x.shape}")
    moved = jax.vmap(_resample, (0, None if move.ndim == 1 else 0))(x, move)
    axes = (1, 2, 3)
    low, high = jnp.min(x, axes, keepdims=True), jnp.max(x, axes, keepdims=True)
    return jnp.clip(moved, jnp.minimum(low, 0.0), jnp.maximum(high, 0.0))  # weights sum to 1 but for rounding


def _resample(image: Array, move: Array) -> Array:
    """One image [H, W, C], each pixel read from where the inverse motion takes it."""
    height, width, channels = image.shape
    angle = jnp.deg2rad(move[2])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    right = (jnp.arange(width, dtype=image.dtype) - (width - 1) / 2 - move[0])[None, :]
    down = (jnp.arange(height, dtype=image.dtype) - (height - 1) / 2 - move[1])[:, None]
    columns = cos * right - sin * down + (width - 1) / 2
    rows = sin * right + cos * down + (height - 1) / 2
    top, left = jnp.floor(rows), jnp.floor(columns)
    pixels = image.reshape(height * width, channels)
    out = jnp.zeros_like(image)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = jnp.where(seen, row * width + column, 0).astype(jnp.int32)
        out = out + jnp.where(seen, weight, 0.0)[..., None] * pixels[place]
    return out


def _evenly(limit: float | Array, num: int) -> Array:
    """`num` values from -limit to limit, 0 among them where `num` is odd; 0 alone for one."""
    return limit * (jnp.linspace(-1.0, 1.0, num) if num > 1 else jnp.zeros(1))


def _grid(shifts: Array, angles: Array) -> Array:
    """All (right, down, angle), [num_shifts^2 * num_angles, 3]."""
    right, down, angle = jnp.meshgrid(shifts, shifts, angles, indexing="ij")
    return jnp.stack([right.ravel(), down.ravel(), angle.ravel()], -1)
