"""Convolutions backwards: their parameters in one form, and the transposed product, fast where strides are not 1."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.interpreter import Equation
from robustgen.core import Array

_NHWC = ("NHWC", "HWIO", "NHWC")


class Sliding(NamedTuple):
    """A convolution or sum over windows of two spatial axes, without its padding.

    linear: [1, h, w, channels] -> [1, h', w', C]; size: how far it sees; axes of the operand and of the result.
    """

    linear: Callable[[Array], Array]
    size: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    axes_in: tuple[int, int, int]
    axes_out: tuple[int, int, int]


def sliding(equation: Equation, kernel: Array | None, shape: tuple[int, ...]) -> Sliding | None:
    """The equation (on an operand of `shape`) in that form; None where it is none, or of another kind."""
    if equation.name == "conv_general_dilated":
        return _convolution(equation, kernel, shape)
    return _window_sum(equation, shape) if equation.name == "reduce_window_sum" else None


def _convolution(equation: Equation, kernel: Array, shape: tuple[int, ...]) -> Sliding | None:
    params = equation.params
    numbers = params["dimension_numbers"]
    if len(shape) != 4 or shape[numbers.lhs_spec[0]] != 1 or set(params["lhs_dilation"]) != {1}:
        return None
    if params["batch_group_count"] != 1 or min(min(pair) for pair in params["padding"]) < 0:
        return None
    out, into, *spatial = numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*spatial, into, out))
    dilation, stride = params["rhs_dilation"], tuple(params["window_strides"])

    def linear(x: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            stride,
            "VALID",
            rhs_dilation=dilation,
            dimension_numbers=_NHWC,
            feature_group_count=params["feature_group_count"],
            precision=params["precision"],
        )

    size = tuple((k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation))
    before = tuple(pair[0] for pair in params["padding"])
    axes_in, axes_out = ((*spec[2:], spec[1]) for spec in (numbers.lhs_spec, numbers.out_spec))
    return Sliding(linear, size, stride, before, axes_in, axes_out)


def _window_sum(equation: Equation, shape: tuple[int, ...]) -> Sliding | None:
    params = equation.params
    moving = [i for i, (k, s) in enumerate(zip(params["window_dimensions"], params["window_strides"])) if (k, s) != (1, 1)]
    others = [i for i in range(len(shape)) if i not in moving]
    channel = [i for i in others if shape[i] != 1]
    if len(moving) != 2 or len(channel) > 1 or len(others) == 0:
        return None
    if set(params["base_dilation"]) != {1} or set(params["window_dilation"]) != {1}:
        return None
    axes = (*moving, channel[0] if channel else others[-1])
    size, stride = (tuple(params[name][i] for i in moving) for name in ("window_dimensions", "window_strides"))
    before = tuple(params["padding"][i][0] for i in moving)

    def linear(x: Array) -> Array:
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, *size, 1), (1, *stride, 1), "VALID")

    return Sliding(linear, size, stride, before, axes, axes)


def transposed(equation: Equation, kernel: Array, rows: Array, shape: tuple[int, ...]) -> Array | None:
    """Coefficients [N, *result] of a convolution's result as those of its operand [N, *shape]; None if not covered.

    XLA's own transpose of a strided convolution spreads the rows with zeros and convolves those: slow on a CPU. Here
    each residue of the positions modulo the stride is a convolution of its own, all made at once as channels.
    """
    params = equation.params
    plain = set(params["lhs_dilation"]) == {1} and set(params["rhs_dilation"]) == {1}
    groups = params["feature_group_count"] == params["batch_group_count"] == 1
    numbers, stride = params["dimension_numbers"], params["window_strides"]
    if len(shape) != 4 or not plain or not groups or max(stride) == 1 or shape[numbers.lhs_spec[0]] != 1:
        return None
    out, into, *spatial = numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*spatial, into, out))
    result = jnp.transpose(rows, (0, *(axis + 1 for axis in (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1]))))
    result = result.reshape(rows.shape[0], *result.shape[2:])  # [N, h, w, C]
    taps = [math.ceil(k / s) for k, s in zip(kernel.shape, stride)]
    padded = jnp.pad(kernel, [(0, t * s - k) for t, s, k in zip(taps, stride, kernel.shape)] + [(0, 0), (0, 0)])
    split = padded.reshape(taps[0], stride[0], taps[1], stride[1], *kernel.shape[2:])[::-1, :, ::-1]
    phases = jnp.transpose(split, (0, 2, 5, 1, 3, 4)).reshape(*taps, kernel.shape[3], -1)
    moved = jax.lax.conv_general_dilated(
        result, phases, (1, 1), [(t - 1, t - 1) for t in taps], dimension_numbers=_NHWC, precision=params["precision"]
    )
    height, width = moved.shape[1:3]
    apart = moved.reshape(-1, height, width, *stride, kernel.shape[2]).transpose(0, 1, 3, 2, 4, 5)
    whole = apart.reshape(-1, height * stride[0], width * stride[1], kernel.shape[2])
    size = [shape[axis] for axis in numbers.lhs_spec[2:]]
    whole = _cropped(whole, [pair[0] for pair in params["padding"]], size)
    order = sorted(range(3), key=lambda i: (*numbers.lhs_spec[2:], numbers.lhs_spec[1])[i])
    return jnp.transpose(whole, (0, *(1 + i for i in order))).reshape(rows.shape[0], *shape)


def _cropped(maps: Array, start: list[int], size: list[int]) -> Array:
    """maps [N, H, W, C] from `start` on, as large as `size`; zeros where a map ends earlier."""
    missing = [max(s + n - have, 0) for s, n, have in zip(start, size, maps.shape[1:3])]
    maps = jnp.pad(maps, ((0, 0), (max(-start[0], 0), missing[0]), (max(-start[1], 0), missing[1]), (0, 0)))
    top, left = (max(s, 0) for s in start)
    return maps[:, top : top + size[0], left : left + size[1]]
