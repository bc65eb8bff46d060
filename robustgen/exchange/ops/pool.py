"""Pools over sliding windows, and over all of the spatial axes."""

import numpy as np
from jax import lax

from robustgen.exchange.ops.call import Call, Op, OpError, Values, expect_size
from robustgen.exchange.ops.windows import Window, ceiled, padding, window


def max_pool(call: Call, x: Values) -> Values:
    """The maximum in each window; padding never wins. Only values, no indices."""
    call.get("storage_order", int, 0)  # of the indices, which are not given
    form, pads, _ = _form(call, x)
    return lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype)[()],
        lax.max,
        (1, 1, *form.sizes),
        (1, 1, *form.strides),
        [(0, 0), (0, 0), *pads],
        window_dilation=(1, 1, *form.dilations),
    )


def average_pool(call: Call, x: Values) -> Values:
    """The mean in each window, over the input's elements; with count_include_pad over given pads as well.

    What lies beyond them, where `ceil_mode` lets a window reach, never counts.
    """
    form, pads, given = _form(call, x)
    total = lax.reduce_window(
        x,
        np.array(0, x.dtype)[()],
        lax.add,
        (1, 1, *form.sizes),
        (1, 1, *form.strides),
        [(0, 0), (0, 0), *pads],
        window_dilation=(1, 1, *form.dilations),
    )
    expect_size(total.shape)
    counted = given if call.flag("count_include_pad") else [(0, 0)] * len(form.sizes)
    counts = np.ones((1, 1) + (1,) * len(form.sizes), np.float32)
    for axis, (low, extra, out) in enumerate(zip(pads, counted, total.shape[2:], strict=True)):
        starts = np.arange(out) * form.strides[axis] - low[0]
        ends = (-extra[0], x.shape[2 + axis] + extra[1])  # positions that count: the first, and the one after the last
        first, last = (np.clip(-((starts - end) // form.dilations[axis]), 0, form.sizes[axis]) for end in ends)
        counts = counts * (last - first).astype(np.float32).reshape(-1, *(1,) * (len(form.sizes) - 1 - axis))
    if not np.all(counts):
        raise OpError("has a window over nothing but padding")
    if np.all(counts == counts.reshape(-1)[0]):  # one number, which is cheap to bound
        return total / float(counts.reshape(-1)[0])
    return total / counts.astype(x.dtype)


def global_average_pool(call: Call, x: Values) -> Values:
    """The mean over all spatial axes, which stay with size 1."""
    return x.mean(_spatial(x), keepdims=True)


def global_max_pool(call: Call, x: Values) -> Values:
    """The maximum over all spatial axes, which stay with size 1."""
    return x.max(_spatial(x), keepdims=True)


def _form(call: Call, x: Values) -> tuple[Window, list[tuple[int, int]], list[tuple[int, int]]]:
    """The window, the pads that all windows need, and those that were given."""
    sizes = call.integers("kernel_shape")
    if not sizes:
        raise OpError("has no kernel_shape")
    form = window(call, sizes)
    given = padding(call, form, x.shape[2:])
    if call.get("auto_pad", str, "NOTSET").startswith("SAME") and max(form.dilations) > 1:
        raise OpError("has dilations with auto_pad SAME, which tools disagree about; pads instead are supported")
    expect_size([n + sum(pad) for n, pad in zip(x.shape, [(0, 0), (0, 0), *given], strict=True)])
    if any(low >= reach or high >= reach for (low, high), reach in zip(given, form.reaches, strict=True)):
        raise OpError(f"has pads {given} as large as its window {list(form.reaches)}")
    pads = _ceiled(call, form, x.shape[2:], given) if call.flag("ceil_mode") else given
    if any(n + sum(pad) < reach for n, pad, reach in zip(x.shape[2:], pads, form.reaches, strict=True)):
        raise OpError(f"has a window {list(form.reaches)} larger than its padded input {list(x.shape[2:])}")
    return form, pads, given


def _ceiled(call: Call, form: Window, sizes: tuple[int, ...], given: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pads of `ceil_mode`. With VALID it has no effect in the standard and has one in ONNX Runtime: refused."""
    mode, pads = call.get("auto_pad", str, "NOTSET"), ceiled(form, sizes, given)
    if mode == "VALID" and pads != given:
        raise OpError("has ceil_mode with auto_pad VALID, which tools disagree about; pads instead are supported")
    return pads if mode == "NOTSET" else given


def _spatial(x: Values) -> tuple[int, ...]:
    if x.ndim < 3:
        raise OpError(f"pools spatial axes; its input has shape {list(x.shape)}")
    return tuple(range(2, x.ndim))


OPS = {
    "MaxPool": Op(max_pool),
    "AveragePool": Op(average_pool),
    "GlobalAveragePool": Op(global_average_pool),
    "GlobalMaxPool": Op(global_max_pool),
}
