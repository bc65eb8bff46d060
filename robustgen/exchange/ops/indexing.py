"""Operators that pick or repeat elements by constant positions: slices, gathers and pads."""

import numpy as np
from jax import lax

from robustgen.exchange import limits
from robustgen.exchange.ops.call import (
    Call,
    Op,
    OpError,
    Values,
    axes_in,
    axis_in,
    expect_size,
    integers_of,
    scalar_of,
)


def slice_(
    call: Call,
    x: Values,
    starts: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Values:
    """Python's slices of some axes: attributes before opset 10, inputs since."""
    names, given = ("starts", "ends", "axes", "steps"), (starts, ends, axes, steps)
    if call.opset < 10:
        first, last, along, step = (*(call.integers(name) for name in names[:3]), None)
    else:
        first, last, along, step = (v if v is None else integers_of(n, v) for n, v in zip(names, given, strict=True))
    if first is None or last is None:
        raise OpError("has no starts or no ends")
    along = axes_in(tuple(range(len(first))) if along is None else along, x.ndim)
    step = (1,) * len(first) if step is None else step
    if not len(first) == len(last) == len(along) == len(step) or 0 in step:
        lists = (f"{name} {list(each)[:8]}" for name, each in zip(names, (first, last, along, step), strict=True))
        raise OpError(f"has {', '.join(lists)}")
    for begin, end, axis, stride in zip(first, last, along, step, strict=True):
        x = _sliced(call, x, axis, range(*slice(begin, end, stride).indices(x.shape[axis])))
    return x


def _sliced(call: Call, x: Values, axis: int, positions: range) -> Values:
    """The elements at `positions` of one axis, as slices and reversals alone, which every verifier knows."""
    low, high, step = (positions[0], positions[-1], positions.step) if positions else (0, -1, 1)
    ascending = (low, high + 1, step) if step > 0 else (high, low + 1, -step)
    if call.xp is np:
        picked = x[(slice(None),) * axis + (slice(*ascending),)]
        return np.flip(picked, axis) if step < 0 else picked
    picked = lax.slice_in_dim(x, *ascending, axis=axis)
    return lax.rev(picked, (axis,)) if step < 0 else picked


def gather(call: Call, x: Values, indices: np.ndarray) -> Values:
    """The slices at constant indices along `axis`; the axes of the indices take its place."""
    axis = axis_in(call.get("axis", int, 0), x.ndim)
    size = x.shape[axis]
    if indices.dtype.kind not in "iu" or np.any(indices < -size) or np.any(indices >= size):
        raise OpError(f"has indices outside -{size} .. {size - 1}, or that are no integers")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    expect_size(shape)
    picked = taken(call, x, indices.reshape(-1).astype(np.int64) % max(size, 1), axis)
    return picked.reshape(shape)


def taken(call: Call, x: Values, indices: np.ndarray, axis: int) -> Values:
    """The slices at indices [n] >= 0; a slice where they follow one another."""
    steps = set(np.diff(indices).tolist()) if indices.size < 2**16 else set()
    if indices.size == 1 or (len(steps) == 1 and 0 not in steps):
        step = steps.pop() if steps else 1
        return _sliced(call, x, axis, range(int(indices[0]), int(indices[-1]) + (1 if step > 0 else -1), step))
    return x.take(indices, axis) if call.xp is np else call.xp.take(x, indices, axis, mode="clip")


def pad(
    call: Call,
    x: Values,
    pads: np.ndarray | None = None,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
) -> Values:
    """Elements around: constant, or by index (edge, reflect, wrap). Negative pads cut. Inputs since opset 11."""
    mode = call.one_of("mode", ("constant", "edge", "reflect", "wrap"), "constant")
    amounts = call.integers("pads") if call.opset < 11 else None if pads is None else integers_of("pads", pads)
    fill = call.get("value", float, 0.0) if call.opset < 11 else 0.0 if value is None else scalar_of("the value", value)
    along = range(x.ndim) if axes is None else axes_in(integers_of("axes", axes), x.ndim)
    if amounts is None or len(amounts) != 2 * len(along):
        raise OpError(f"has {len(amounts or ())} pads for {len(along)} axes; there are two an axis")
    widths = {axis: (amounts[i], amounts[i + len(along)]) for i, axis in enumerate(along)}
    full = [widths.get(axis, (0, 0)) for axis in range(x.ndim)]
    sizes = [size + low + high for size, (low, high) in zip(x.shape, full, strict=True)]
    if any(size < -min(low, high, low + high, 0) for size, (low, high) in zip(x.shape, full, strict=True)):
        raise OpError(f"cuts more than there is of shape {list(x.shape)}")
    expect_size(sizes)
    if mode == "constant":
        return _constant_pad(call, x, full, fill)
    expect_size([max(sizes, default=0)], limits.POSITIONS)
    for axis, (low, high) in widths.items():
        if low or high:
            x = taken(call, x, _beyond(mode, x.shape[axis], low, high), axis)
    return x


def _constant_pad(call: Call, x: Values, widths: list[tuple[int, int]], fill: float) -> Values:
    if call.xp is not np:
        return lax.pad(x, np.array(fill, x.dtype), [(low, high, 0) for low, high in widths])
    cut = x[tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape, widths, strict=True))]
    return np.pad(cut, [(max(low, 0), max(high, 0)) for low, high in widths], constant_values=fill)


def _beyond(mode: str, size: int, low: int, high: int) -> np.ndarray:
    """The positions in an axis of `size` of each element of the padded one."""
    positions = np.arange(-low, size + high)
    if size == 0:
        raise OpError(f"has nothing to {mode}")
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return positions % size
    turn = positions % max(2 * (size - 1), 1)
    return np.minimum(turn, 2 * (size - 1) - turn) if size > 1 else np.zeros_like(positions)


OPS = {
    "Slice": Op(slice_, needs=(1, 2, 3, 4), folds=True),
    "Gather": Op(gather, needs=(1,), folds=True),
    "Pad": Op(pad, needs=(1, 2, 3), folds=True),
}
