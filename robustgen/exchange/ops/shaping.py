"""Operators that only arrange: the same numbers in another shape or order."""

import math
from collections.abc import Sequence

import numpy as np

from robustgen.exchange.ops.call import (
    Call,
    Op,
    OpError,
    Values,
    axes_in,
    axis_in,
    expect_size,
    integers_of,
)


def flatten(call: Call, x: Values) -> Values:
    """A matrix: axes before `axis` together, and those from it on."""
    axis = call.get("axis", int, 1)
    if not -x.ndim <= axis <= x.ndim:
        raise OpError(f"has axis {axis}; there are {x.ndim} axes")
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def reshape(call: Call, x: Values, shape: np.ndarray) -> Values:
    """Another shape: -1 is what remains, 0 the size that was there (unless `allowzero`)."""
    sizes = list(integers_of("the shape", shape))
    if not call.flag("allowzero"):
        if any(size == 0 and i >= x.ndim for i, size in enumerate(sizes)):
            raise OpError(f"has shape {sizes} with a 0 beyond the {x.ndim} axes of its input")
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    unknown = sizes.count(-1)
    if unknown > 1 or min(sizes, default=0) < -1 or (unknown and (not known or x.size % known)):
        raise OpError(f"cannot give {list(x.shape)} the shape {sizes}")
    sizes = [x.size // known if size == -1 else size for size in sizes]
    expect_size(sizes)
    if math.prod(sizes) != x.size:
        raise OpError(f"cannot give {list(x.shape)} the shape {sizes}")
    return x.reshape(sizes)


def transpose(call: Call, x: Values) -> Values:
    """Axes in the order `perm`, by default reversed."""
    perm = call.integers("perm", tuple(reversed(range(x.ndim))))
    if sorted(perm) != list(range(x.ndim)):
        raise OpError(f"has perm {list(perm)[:8]} for {x.ndim} axes")
    return x.transpose(perm)


def squeeze(call: Call, x: Values, axes: np.ndarray | None = None) -> Values:
    """Without axes of size 1: the given ones, by default all."""
    chosen = _axes(call, axes)
    ones = tuple(i for i, size in enumerate(x.shape) if size == 1)
    dropped = ones if chosen is None else axes_in(chosen, x.ndim)
    if not set(dropped) <= set(ones):
        raise OpError(f"drops axes {list(dropped)} of shape {list(x.shape)}")
    return x.reshape([size for i, size in enumerate(x.shape) if i not in dropped])


def unsqueeze(call: Call, x: Values, axes: np.ndarray | None = None) -> Values:
    """With new axes of size 1 at the given places of the result."""
    chosen = _axes(call, axes)
    if chosen is None:
        raise OpError("has no axes")
    rank = x.ndim + len(chosen)
    new, sizes = axes_in(chosen, rank), iter(x.shape)
    expect_size([1] * rank)
    return x.reshape([1 if i in new else next(sizes) for i in range(rank)])


def concat(call: Call, *xs: Values) -> Values:
    """Tensors one after the other along `axis`."""
    axis = call.get("axis", int)
    if axis is None:
        raise OpError("has no axis")
    return call.xp.concatenate(xs, axis_in(axis, xs[0].ndim))


def split(call: Call, x: Values, lengths: np.ndarray | None = None) -> tuple[Values, ...]:
    """Pieces along `axis`: of given lengths, or equal ones, of which the last may be smaller since opset 18."""
    axis = axis_in(call.get("axis", int, 0), x.ndim)
    size, given = x.shape[axis], call.integers("split") if call.opset < 13 else None
    if call.opset >= 13 and lengths is not None:
        given = integers_of("split", lengths)
    if given is None:
        parts = call.get("num_outputs", int, call.num_outputs) if call.opset >= 18 else call.num_outputs
        length = -(-size // parts) if parts > 0 else 0
        if parts != call.num_outputs or (size % parts and call.opset < 18) or length * (parts - 1) > size:
            raise OpError(f"cannot split {size} into {parts} outputs of {call.num_outputs}")
        given = (length,) * (parts - 1) + (size - length * (parts - 1),)
    if len(given) != call.num_outputs or sum(given) != size or min(given) < 0:
        raise OpError(f"cannot split {size} into {list(given)[:8]} for {call.num_outputs} outputs")
    ends = np.cumsum(given)
    whole = (slice(None),) * axis
    return tuple(x[(*whole, slice(int(end) - length, int(end)))] for end, length in zip(ends, given, strict=True))


def expand(call: Call, x: Values, shape: np.ndarray) -> Values:
    """Broadcast to a shape, in both directions as NumPy does."""
    target = np.broadcast_shapes(tuple(x.shape), integers_of("the shape", shape))
    expect_size(target)
    return call.xp.broadcast_to(x, target)


def tile(call: Call, x: Values, repeats: np.ndarray) -> Values:
    """Each axis repeated as often as said."""
    times = integers_of("repeats", repeats)
    if len(times) != x.ndim or min(times, default=1) < 0:
        raise OpError(f"has repeats {list(times)[:8]} for {x.ndim} axes")
    expect_size([size * times for size, times in zip(x.shape, times, strict=True)])
    return call.xp.tile(x, times)


def _axes(call: Call, axes: np.ndarray | None) -> Sequence[int] | None:
    """An attribute before opset 13, an input since."""
    if call.opset < 13:
        return call.integers("axes")
    return None if axes is None else integers_of("axes", axes)


OPS = {
    "Flatten": Op(flatten, folds=True),
    "Reshape": Op(reshape, needs=(1,), folds=True),
    "Transpose": Op(transpose, folds=True),
    "Squeeze": Op(squeeze, needs=(1,), folds=True),
    "Unsqueeze": Op(unsqueeze, needs=(1,), folds=True),
    "Concat": Op(concat, folds=True),
    "Split": Op(split, needs=(1,), folds=True),
    "Expand": Op(expand, needs=(1,), folds=True),
    "Tile": Op(tile, needs=(1,), folds=True),
}
