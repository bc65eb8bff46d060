"""Upsample and Resize by nearest neighbours: each element of the result is one of the input's, at a fixed position."""

import math
from collections.abc import Sequence

import numpy as np

from robustgen.exchange import limits
from robustgen.exchange.ops.call import Call, Op, OpError, Values, axes_in, expect_size, integers_of
from robustgen.exchange.ops.indexing import taken

_ROUNDINGS = {
    "round_prefer_floor": lambda position: np.ceil(position - 0.5),
    "round_prefer_ceil": lambda position: np.floor(position + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
_TRANSFORMS = {  # position in the result, scale, size of the input, size of the result -> position in the input
    "half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5 if new > 1 else 0 * i,
    "asymmetric": lambda i, scale, old, new: i / scale,
    "align_corners": lambda i, scale, old, new: i * (old - 1) / (new - 1) if new > 1 else 0 * i,
}


def upsample(call: Call, x: Values, scales: np.ndarray | None = None) -> Values:
    """Position / scale, rounded down: opset 7 to 9."""
    call.one_of("mode", ("nearest",), "nearest")
    given = call.get("scales", tuple) if call.opset < 9 else scales
    return _nearest(call, x, _floats(given, x.ndim), None, "asymmetric", "floor")


def resize(
    call: Call,
    x: Values,
    second: np.ndarray | None = None,
    third: np.ndarray | None = None,
    fourth: np.ndarray | None = None,
) -> Values:
    """To sizes or by scales, inputs (x, scales) in opset 10 and (x, roi, scales, sizes) since."""
    call.one_of("mode", ("nearest",), "nearest")
    for name in ("cubic_coeff_a", "exclude_outside", "extrapolation_value"):  # they are not about nearest neighbours
        call.get(name, (int, float))
    call.one_of("antialias", (0,), 0)
    call.one_of("keep_aspect_ratio_policy", ("stretch",), "stretch")
    along = axes_in(call.integers("axes", tuple(range(x.ndim))), x.ndim)
    scales, sizes = (third, fourth) if call.opset >= 11 else (second, None)
    scales, sizes = (None if each is None or not each.size else each for each in (scales, sizes))
    if (scales is None) == (sizes is None):
        raise OpError("has neither scales nor sizes, or both")
    if call.opset < 11:
        return _nearest(call, x, _floats(scales, x.ndim), None, "asymmetric", "floor")
    transform = call.one_of("coordinate_transformation_mode", tuple(_TRANSFORMS), "half_pixel")
    rounding = call.one_of("nearest_mode", tuple(_ROUNDINGS), "round_prefer_floor")
    if scales is not None:
        return _nearest(call, x, _spread(along, _floats(scales, len(along)), [1.0] * x.ndim), None, transform, rounding)
    target = _spread(along, integers_of("sizes", sizes), list(x.shape))
    if min(*target, *x.shape) < 1:
        raise OpError(f"resizes {list(x.shape)} to {target}")
    ratios = [new / old for new, old in zip(target, x.shape, strict=True)]
    return _nearest(call, x, ratios, target, transform, rounding)


def _floats(values: np.ndarray | tuple | None, length: int) -> list[float]:
    numbers = [] if values is None else np.asarray(values, np.float64).reshape(-1).tolist()
    if len(numbers) != length or not all(0 < number < 2**24 for number in numbers):
        raise OpError(f"has scales {numbers[:8]}; they are {length} positive numbers")
    return numbers


def _spread(along: Sequence[int], values: Sequence, result: list) -> list:
    """`result` with the values in their axes' places."""
    if len(values) != len(along):
        raise OpError(f"has {len(values)} sizes for {len(along)} axes")
    for axis, value in zip(along, values, strict=True):
        result[axis] = value
    return result


def _nearest(
    call: Call, x: Values, scales: Sequence[float], sizes: Sequence[int] | None, transform: str, rounding: str
) -> Values:
    if sizes is None:
        sizes = [math.floor(old * scale) for old, scale in zip(x.shape, scales, strict=True)]
    expect_size(sizes)
    expect_size([max(sizes, default=0)], limits.POSITIONS)
    for axis, (new, scale) in enumerate(zip(sizes, scales, strict=True)):
        old = x.shape[axis]
        if new != old or scale != 1:
            position = _TRANSFORMS[transform](np.arange(new, dtype=np.float64), scale, old, new)
            nearest = np.clip(_ROUNDINGS[rounding](position), 0, old - 1)
            x = taken(call, x, nearest.astype(np.int64), axis)
    return x


OPS = {
    "Upsample": Op(upsample, needs=(1,)),
    "Resize": Op(resize, needs=(1, 2, 3)),
}
