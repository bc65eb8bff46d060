"""Convolutions and sums over windows, backwards: fast on a CPU where strides are not 1, and inside loops."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.interpreter import Equation
from robustgen.core import Array

_NHWC = ("NHWC", "HWIO", "NHWC")
_HIGHEST = jax.lax.Precision.HIGHEST


class Sliding(NamedTuple):
    """A convolution or sum over windows of two spatial axes, without its padding.

    pull: coefficients [N, h', w', C] of results -> [N, h, w, C'] of the operands they see. size: how far it sees;
    before, after: the padding; axes: rows, columns and channels of the operand's and of the result's array.
    """

    pull: Callable[[Array], Array]
    size: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    axes_in: tuple[int, int, int]
    axes_out: tuple[int, int, int]


def sliding(equation: Equation, kernel: Array | None, shape: Sequence[int]) -> Sliding | None:
    """The equation (on an operand of `shape`) in that form; None where it is none, or of another kind."""
    if equation.name == "conv_general_dilated":
        return _convolution(equation, kernel, shape)
    return _window_sum(equation, shape) if equation.name == "reduce_window_sum" else None


def _convolution(equation: Equation, kernel: Array | None, shape: Sequence[int]) -> Sliding | None:
    params = equation.params
    numbers = params["dimension_numbers"]
    if kernel is None or len(shape) != 4 or shape[numbers.lhs_spec[0]] != 1 or set(params["lhs_dilation"]) != {1}:
        return None
    if params["batch_group_count"] != 1 or min(min(pair) for pair in params["padding"]) < 0:
        return None
    out, into, *spatial = numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*spatial, into, out))
    dilation, stride = tuple(params["rhs_dilation"]), tuple(params["window_strides"])
    groups = params["feature_group_count"]
    size = tuple((k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True))
    before = tuple(pair[0] for pair in params["padding"])
    axes_in, axes_out = ((*spec[2:], spec[1]) for spec in (numbers.lhs_spec, numbers.out_spec))

    def pull(rows: Array) -> Array:
        if groups == 1 and dilation == (1, 1):
            return _pulled(rows, kernel, stride)
        return _pulled_plainly(rows, kernel, stride, dilation, groups)

    return Sliding(pull, size, stride, before, axes_in, axes_out)


def _window_sum(equation: Equation, shape: Sequence[int]) -> Sliding | None:
    params = equation.params
    moves = zip(params["window_dimensions"], params["window_strides"], strict=True)
    moving = [i for i, move in enumerate(moves) if move != (1, 1)]
    others = [i for i in range(len(shape)) if i not in moving]
    channel = [i for i in others if shape[i] != 1]
    if len(moving) != 2 or len(channel) > 1 or len(others) == 0:
        return None
    if set(params["base_dilation"]) != {1} or set(params["window_dilation"]) != {1}:
        return None
    padding = [tuple(pair) for pair in params["padding"]]
    if any(padding[i] != (0, 0) for i in others) or min(map(min, padding)) < 0:
        return None
    axes = (*moving, channel[0] if channel else others[-1])
    size, stride = (tuple(params[name][i] for i in moving) for name in ("window_dimensions", "window_strides"))
    before = tuple(params["padding"][i][0] for i in moving)

    def pull(rows: Array) -> Array:
        window = [(n - 1) * s + k for n, s, k in zip(rows.shape[1:3], stride, size, strict=True)]
        operand = jax.ShapeDtypeStruct((rows.shape[0], *window, rows.shape[3]), rows.dtype)
        return jax.linear_transpose(
            lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, *size, 1), (1, *stride, 1), "VALID"), operand
        )(rows)[0]

    return Sliding(pull, size, stride, before, axes, axes)


def whole(slides: Sliding, rows: Array, shape: Sequence[int]) -> Array:
    """Coefficients [N, *result] of all of a sliding equation's result as those [N, *shape] of its operand."""
    row, column, channel = slides.axes_out
    others = [i for i in range(rows.ndim - 1) if i not in slides.axes_out]
    result = jnp.transpose(rows, (0, *(1 + i for i in (*others, row, column, channel))))
    moved = slides.pull(result.reshape(rows.shape[0], *result.shape[-3:]))
    moved = _cropped(moved, slides.before, [shape[axis] for axis in slides.axes_in[:2]])
    order = sorted(range(3), key=lambda i: slides.axes_in[i])
    return jnp.transpose(moved, (0, *(1 + i for i in order))).reshape(rows.shape[0], *shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pulled(rows: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    """The transpose of a convolution without padding: [N, h', w', C] -> [N, h, w, C'], kernel [kh, kw, C', C].

    XLA's own transpose of a strided convolution spreads the rows with zeros and convolves those. Here each residue of
    the positions modulo the stride is a convolution of its own, all made at once as channels. Its derivative is given
    as the convolution that it is: inside a loop, the form that JAX derives runs on XLA's slow path on a CPU.
    """
    taps = [math.ceil(k / s) for k, s in zip(kernel.shape[:2], stride, strict=True)]
    short = [(0, t * s - k) for t, s, k in zip(taps, stride, kernel.shape[:2], strict=True)]
    padded = jnp.pad(kernel, [*short, (0, 0), (0, 0)])
    split = padded.reshape(taps[0], stride[0], taps[1], stride[1], *kernel.shape[2:])[::-1, :, ::-1]
    phases = jnp.transpose(split, (0, 2, 5, 1, 3, 4)).reshape(*taps, kernel.shape[3], -1)
    edges = [(t - 1, t - 1) for t in taps]
    moved = jax.lax.conv_general_dilated(rows, phases, (1, 1), edges, dimension_numbers=_NHWC, precision=_HIGHEST)
    count, height, width, _ = moved.shape
    apart = moved.reshape(count, height, width, *stride, kernel.shape[2]).transpose(0, 1, 3, 2, 4, 5)
    joint = apart.reshape(count, height * stride[0], width * stride[1], kernel.shape[2])
    window = [(n - 1) * s + k for n, s, k in zip(rows.shape[1:3], stride, kernel.shape[:2], strict=True)]
    return joint[:, : window[0], : window[1]]


def _pulled_forward(rows: Array, kernel: Array, stride: tuple[int, int]) -> tuple[Array, tuple[Array, Array]]:
    return _pulled(rows, kernel, stride), (rows, kernel)


def _pulled_backward(stride: tuple[int, int], kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    rows, kernel = kept
    _, to_kernel = jax.vjp(lambda k: _convolved(cotangent, k, stride), kernel)
    return _convolved(cotangent, kernel, stride), to_kernel(rows)[0]


_pulled.defvjp(_pulled_forward, _pulled_backward)


def _convolved(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, stride, "VALID", dimension_numbers=_NHWC, precision=_HIGHEST)


def _pulled_plainly(rows: Array, kernel: Array, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Array:
    """The same for any dilation and number of groups, as XLA does it."""
    size = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)]
    window = [(n - 1) * s + k for n, s, k in zip(rows.shape[1:3], stride, size, strict=True)]
    operand = jax.ShapeDtypeStruct((rows.shape[0], *window, kernel.shape[2] * groups), rows.dtype)

    def convolved(x: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x, kernel, stride, "VALID", None, dilation, _NHWC, groups, precision=_HIGHEST
        )

    return jax.linear_transpose(convolved, operand)(rows)[0]


def _cropped(maps: Array, start: Sequence[int], size: Sequence[int]) -> Array:
    """maps [N, H, W, C] from `start` on, as large as `size`; zeros where a map ends earlier."""
    missing = [max(s + n - have, 0) for s, n, have in zip(start, size, maps.shape[1:3], strict=True)]
    maps = jnp.pad(maps, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    top, left = start
    return maps[:, top : top + size[0], left : left + size[1]]
