"""Two-dimensional convolution, NHWC, with derivatives that XLA's CPU back end runs fast, inside loops too.

Inside a `fori_loop`, `scan` or `while_loop` that back end leaves the convolutions of a derivative in a layout it has no
fast kernel for (jax issue 12868). `conv2d` writes each derivative as a forward convolution of itself, or as a matrix
product where channels are few, so that derivatives of every order stay fast. A stride is undone first, by moving
s x s blocks of pixels into channels. Other back ends differentiate `lax.conv_general_dilated` their own way.
"""

import contextlib
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from robustgen.core import Array

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after the rows, before and after the columns."""

VALID = ((0, 0), (0, 0))

FEW_CHANNELS = 4
"""Up to here sums and matrix products beat XLA's convolution on the CPU: experiments/benchmarks/conv_forms.py."""

_gradients = jax.make_user_context(default_value=None)  # part of jit's cache key, as a global would not be


def native_gradients() -> contextlib.AbstractContextManager:
    """Context in which `conv2d` is differentiated by XLA. The same derivatives up to rounding, slow inside loops on the
    CPU, but forward mode (`jax.jvp`, `jacfwd`, `linearize`) works, where the CPU's own ones raise TypeError."""
    return _gradients("native")


def conv2d(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Cross-correlation of x [B, H, W, C] with kernel [h, w, C, D], x padded with zeros: [B, H', W', D]."""
    if _gradients.value == "native" or jax.default_backend() != "cpu":
        return _plain(x, kernel, stride, padding)
    if kernel.shape[:2] == (1, 1) and padding == VALID:
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return _conv(x, kernel, stride, padding, _few_channels if _in_blocks(x, kernel, stride) else _plain)


def _in_blocks(x: Array, kernel: Array, stride: int) -> bool:
    """Whether XLA's convolution loses even where no derivative is wanted: few channels, kernels of whole blocks.

    At the highest precision, which certifiers trace at, it stays what was written: one convolution, bounded as one.
    """
    blocks = stride > 1 and not any(k % stride for k in kernel.shape[:2]) and x.shape[3] <= FEW_CHANNELS
    return blocks and jax.config.jax_default_matmul_precision != "highest"


def _plain(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, stride: int, padding: Padding, form: Callable) -> Array:
    """`form` computes the value; the derivatives are the same for all."""
    return form(x, kernel, stride, padding)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding, form: Callable):
    """Where a derivative is wanted the value is computed the fastest way; elsewhere it stays what was written."""
    form = _few_channels if x.shape[3] <= FEW_CHANNELS else form
    return _conv(x, kernel, stride, padding, form), (x, kernel)


def _backward(stride: int, padding: Padding, form: Callable, residuals: tuple[Array, Array], g: Array):
    x, kernel = residuals
    if stride == 1:
        return _input_gradient(x.shape, kernel, padding, g), _kernel_gradient(x, kernel.shape, padding, g)
    blocks = functools.partial(_blocks_to_channels, stride=stride, padding=padding, kernel=kernel.shape)
    fold = functools.partial(_fold_kernel, stride=stride)
    x_blocks, kernel_blocks = blocks(x), fold(kernel)
    (dx,) = jax.linear_transpose(blocks, x)(_input_gradient(x_blocks.shape, kernel_blocks, VALID, g))
    if any(k % stride for k in kernel.shape[:2]):  # blocks would hold taps that are always zero
        return dx, _tap_products(x, kernel.shape, stride, padding, g)
    (dk,) = jax.linear_transpose(fold, kernel)(_kernel_gradient(x_blocks, kernel_blocks.shape, VALID, g))
    return dx, dk


_conv.defvjp(_forward, _backward)


def _few_channels(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    if stride > 1:
        x = _blocks_to_channels(x, stride=stride, padding=padding, kernel=kernel.shape)
        kernel, padding = _fold_kernel(kernel, stride=stride), VALID
    return _sum_of_shifts(x, kernel, padding) if x.shape[3] <= FEW_CHANNELS else _plain(x, kernel, 1, padding)


def _sum_of_shifts(x: Array, kernel: Array, padding: Padding) -> Array:
    """One multiplication per tap and input channel: XLA fuses them all into one pass over the output. Stride 1."""
    x = _pad(x, *padding)
    h, w, channels, _ = kernel.shape
    rows, cols = x.shape[1] - h + 1, x.shape[2] - w + 1
    taps = [(i, j, c) for i in range(h) for j in range(w) for c in range(channels)]
    return sum(x[:, i : i + rows, j : j + cols, c : c + 1] * kernel[i, j, c].reshape(1, 1, 1, -1) for i, j, c in taps)


def _input_gradient(shape: tuple[int, ...], kernel: Array, padding: Padding, g: Array) -> Array:
    """The full convolution of g with the kernel turned by 180 degrees, its channels exchanged. Stride 1."""
    if shape[3] <= FEW_CHANNELS:
        return _spread(shape, kernel, padding, g)
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    ends = zip(shape[1:3], g.shape[1:3], kernel.shape[:2], padding, strict=True)
    full = tuple((k - 1 - low, n + low - m) for n, m, k, (low, _) in ends)
    return _conv(g, turned, 1, full, _plain)


def _spread(shape: tuple[int, ...], kernel: Array, padding: Padding, g: Array) -> Array:
    """All taps as one matrix product, then each moved to where it belongs and added. Stride 1."""
    taps = jnp.einsum("bhwd,ijcd->bhwijc", g, kernel)
    (top, _), (left, _), (height, width) = *padding, shape[1:3]

    def moved(i: int, j: int) -> Array:
        rows, cols = (i - top, height - g.shape[1] - i + top), (j - left, width - g.shape[2] - j + left)
        return _pad(taps[:, :, :, i, j], rows, cols)

    return sum(moved(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1]))


def _kernel_gradient(x: Array, shape: tuple[int, ...], padding: Padding, g: Array) -> Array:
    """x correlated with g, channels in the place of examples and examples in the place of channels. Stride 1."""
    if x.shape[3] <= FEW_CHANNELS:
        return _patch_products(x, shape, padding, g)
    ends = zip(x.shape[1:3], g.shape[1:3], shape[:2], padding, strict=True)
    exact = tuple((low, m + k - 1 - n - low) for n, m, k, (low, _) in ends)
    turned = _conv(jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3)), 1, exact, _plain)
    return jnp.transpose(turned, (1, 2, 0, 3))


def _patch_products(x: Array, shape: tuple[int, ...], padding: Padding, g: Array) -> Array:
    """One matrix product per row of the kernel, over the columns of x laid side by side. Stride 1."""
    x = _pad(x, *padding)
    cols = jnp.concatenate([x[:, :, j : j + g.shape[2]] for j in range(shape[1])], axis=3)
    rows = [jnp.einsum("bhwp,bhwd->pd", cols[:, i : i + g.shape[1]], g) for i in range(shape[0])]
    return jnp.stack(rows).reshape(shape)


def _tap_products(x: Array, shape: tuple[int, ...], stride: int, padding: Padding, g: Array) -> Array:
    """One matrix product per tap of the kernel, with the pixels that it meets."""
    x = _pad(x, *padding)
    rows, cols = (stride * (m - 1) + 1 for m in g.shape[1:3])
    taps = [
        jnp.einsum("bhwc,bhwd->cd", x[:, i : i + rows : stride, j : j + cols : stride], g)
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return jnp.stack(taps).reshape(shape)


def _blocks_to_channels(x: Array, *, stride: int, padding: Padding, kernel: tuple[int, ...]) -> Array:
    """x padded, or cropped of what no window sees, with blocks of stride x stride pixels moved to its channels."""

    def extent(n: int, k: int, low: int, high: int) -> int:
        return (n + low + high - k) // stride + -(-k // stride)

    seen = zip(x.shape[1:3], kernel[:2], padding, strict=True)
    height, width = (extent(n, k, *ends) for n, k, ends in seen)
    kept = zip(x.shape[1:3], (height, width), padding, strict=True)
    ends = ((low, stride * m - n - low) for n, m, (low, _) in kept)
    x = _pad(x, *ends).reshape(-1, height, stride, width, stride, x.shape[3])
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(-1, height, width, stride**2 * x.shape[5])


def _fold_kernel(kernel: Array, *, stride: int) -> Array:
    """The kernel of stride 1 that does to blocks what `kernel` does to pixels."""
    s, (h, w, channels, features) = stride, kernel.shape
    kernel = jnp.pad(kernel, ((0, -h % s), (0, -w % s), (0, 0), (0, 0)))
    kernel = kernel.reshape(-(-h // s), s, -(-w // s), s, channels, features)
    return jnp.transpose(kernel, (0, 2, 1, 3, 4, 5)).reshape(-(-h // s), -(-w // s), -1, features)


def _pad(x: Array, rows: tuple[int, int], cols: tuple[int, int]) -> Array:
    """Zeros around the image; negative numbers crop, which jnp.pad refuses."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*cols, 0), (0, 0, 0)))
