"""Coefficients of a linear relation that are zero outside a window per row: the form of convolutions.

A neuron of a convolution depends on a window of every earlier map, so a relation of rows to a map of [H, W, C] is kept
as windows [kh, kw, C] and where they lie. Going back through a convolution is then a product of windows with one small
matrix, whatever the size of the map (Xu et al. 2020, arXiv 2011.13824, appendix B.1, name this form "patches"). A
window may reach over the map's edge: what lies there is zero or is masked away.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from robustgen.certify.convolution import Sliding
from robustgen.core import Array

_LARGEST_MATRIX = 1 << 22
"""Entries of the matrix up to which a convolution of windows is a matrix product; larger ones stay convolutions."""

_DATA, _META = ["values", "at"], ["stride", "offset", "grid", "axes"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=_DATA, meta_fields=_META)
@dataclasses.dataclass(frozen=True)
class Patches:
    """Row (p, o) has the coefficients values[p, o] on the window whose top left corner is at[p] * stride - offset.

    values [P, O, kh, kw, C], or [1, O, ...] where all P rows have the same; at [P, 2], within `grid`; axes: where
    the map's rows, columns and channels are in the array that it is a relation to; its other axes are of size 1.
    """

    values: Array
    at: Array
    stride: tuple[int, int]
    offset: tuple[int, int]
    grid: tuple[int, int]
    axes: tuple[int, int, int]

    @property
    def window(self) -> tuple[int, int]:
        """(kh, kw)."""
        return self.values.shape[2:4]


def every(shape: Sequence[int], axes: tuple[int, int, int], dtype: jnp.dtype) -> Patches:
    """The identity on a map: P its positions in row-major order, O its channels."""
    height, width, channels = (shape[axis] for axis in axes)
    rows, columns = (jnp.arange(size, dtype=jnp.int32) for size in (height, width))
    at = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    values = jnp.eye(channels, dtype=dtype)[None, :, None, None, :]
    return Patches(values, at, (1, 1), (0, 0), (height, width), axes)


def canonical(array: Array, axes: tuple[int, int, int]) -> Array:
    """A map with its unit axes dropped, in the order rows, columns, channels; leading axes are not allowed."""
    others = [axis for axis in range(array.ndim) if axis not in axes]
    return jnp.transpose(array, (*others, *axes)).reshape([array.shape[axis] for axis in axes])


def windows(patches: Patches, array: Array) -> Array:
    """What a map [H, W, C] holds under each window: [P, kh, kw, C], zero outside the map."""
    before, after = _overhang(patches, array.shape[:2])
    padded = jnp.pad(array, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
    corners = _corners(patches, before)
    size = (*patches.window, array.shape[2])
    return jax.vmap(lambda corner: jax.lax.dynamic_slice(padded, (*corner, jnp.int32(0)), size))(corners)


def _corners(patches: Patches, before: Sequence[int]) -> Array:
    """Of the windows in a padded map; int32 always, since float64 may be enabled for a part of a program alone."""
    shift = [b - o for b, o in zip(before, patches.offset, strict=True)]
    return patches.at.astype(jnp.int32) * jnp.array(patches.stride, jnp.int32) + jnp.array(shift, jnp.int32)


def dense(patches: Patches, shape: Sequence[int]) -> Array:
    """The same coefficients as a whole array [P, O, *shape]."""
    height, width, channels = (shape[axis] for axis in patches.axes)
    before, after = _overhang(patches, (height, width))
    corners = _corners(patches, before)
    count, rows = patches.at.shape[0], patches.values.shape[1]
    values = jnp.broadcast_to(patches.values, (count, *patches.values.shape[1:]))
    empty = jnp.zeros((rows, before[0] + height + after[0], before[1] + width + after[1], channels), values.dtype)
    zero = jnp.int32(0)
    whole = jax.vmap(lambda v, c: jax.lax.dynamic_update_slice(empty, v, (zero, *c, zero)))(values, corners)
    whole = whole[:, :, before[0] : before[0] + height, before[1] : before[1] + width]
    return _placed(whole, shape, patches.axes)


def scaled(patches: Patches, array: Array) -> Patches:
    """Coefficients times a map given in the axes of the relation, position by position."""
    return dataclasses.replace(patches, values=patches.values * under(patches, array))


def under(patches: Patches, array: Array) -> Array:
    """A map given in the axes of the relation as [P, 1, kh, kw, C]; alphas [P, 1, *shape] have a map per row."""
    return windows(patches, canonical(array, patches.axes))[:, None]


def total(patches: Patches, array: Array) -> Array:
    """sum of coefficients times a map, per row: [P, O]."""
    return jnp.einsum("pohwc,phwc->po", *_rows(patches, windows(patches, canonical(array, patches.axes))))


def added(a: Patches, b: Patches) -> Patches | None:
    """The sum of two relations of the same rows to the same map; None where their windows move differently."""
    if (a.stride, a.grid, a.axes) != (b.stride, b.grid, b.axes):
        return None
    offset = tuple(map(max, a.offset, b.offset))
    ends = [max(x.window[i] - x.offset[i] for x in (a, b)) for i in (0, 1)]
    parts = []
    for x in (a, b):
        pads = [(offset[i] - x.offset[i], ends[i] - (x.window[i] - x.offset[i])) for i in (0, 1)]
        parts.append(jnp.pad(x.values, ((0, 0), (0, 0), *pads, (0, 0))))
    return dataclasses.replace(a, values=parts[0] + parts[1], offset=offset)


def through(patches: Patches, result: Sequence[int], slides: Sliding, shape: Sequence[int]) -> Patches | None:
    """The relation to the operand, of `shape`, of a sliding equation; `result` is its result's shape.

    None where the windows would be no smaller than the map.
    """
    window = [(k - 1) * s + n for k, s, n in zip(patches.window, slides.stride, slides.size, strict=True)]
    height, width, channels = (shape[axis] for axis in slides.axes_in)
    if window[0] * window[1] >= height * width:
        return None
    values = _masked(patches, result).values
    flat = values.reshape(-1, *values.shape[2:])
    inner, outer = math.prod(flat.shape[1:]), window[0] * window[1] * channels
    if inner * outer <= _LARGEST_MATRIX and flat.shape[0] * 4 >= inner:
        matrix = slides.pull(jnp.eye(inner, dtype=flat.dtype).reshape(inner, *flat.shape[1:])).reshape(inner, outer)
        moved = jnp.dot(flat.reshape(-1, inner), matrix, precision=jax.lax.Precision.HIGHEST)
    else:
        moved = slides.pull(flat)
    return Patches(
        moved.reshape(*values.shape[:2], *window, channels),
        patches.at,
        tuple(a * s for a, s in zip(patches.stride, slides.stride, strict=True)),
        tuple(o * s + b for o, s, b in zip(patches.offset, slides.stride, slides.before, strict=True)),
        patches.grid,
        slides.axes_in,
    )


def _masked(patches: Patches, shape: Sequence[int]) -> Patches:
    """Without the coefficients outside the map: what a convolution would make there is not in its result."""
    before, after = _overhang(patches, [shape[axis] for axis in patches.axes[:2]])
    if not any((*before, *after)):
        return patches
    inside = jnp.ones((shape[patches.axes[0]], shape[patches.axes[1]], 1), patches.values.dtype)
    return dataclasses.replace(patches, values=patches.values * windows(patches, inside)[:, None])


def _overhang(patches: Patches, size: Sequence[int]) -> tuple[list[int], list[int]]:
    """How far the windows of the whole grid reach over the map's edges: (top, left), (bottom, right)."""
    before = [max(offset, 0) for offset in patches.offset]
    last = [(g - 1) * s - o for g, s, o in zip(patches.grid, patches.stride, patches.offset, strict=True)]
    return before, [max(at + k - n, 0) for at, k, n in zip(last, patches.window, size, strict=True)]


def _rows(patches: Patches, under: Array) -> tuple[Array, Array]:
    """Values and windows with as many rows: a single row of values is repeated."""
    return jnp.broadcast_to(patches.values, (under.shape[0], *patches.values.shape[1:])), under


def _placed(maps: Array, shape: Sequence[int], axes: tuple[int, int, int]) -> Array:
    """[P, O, H, W, C] as [P, O, *shape]."""
    order = sorted(range(3), key=lambda i: axes[i])
    return jnp.transpose(maps, (0, 1, *(2 + i for i in order))).reshape(*maps.shape[:2], *shape)
