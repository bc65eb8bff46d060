"""Two-dimensional convolution, NHWC, with derivatives that XLA's CPU back end runs fast inside loops too.

Inside a `fori_loop`, `scan` or `while_loop` that back end leaves the convolutions of a derivative in a layout it has no
fast kernel for (jax issue 12868). `conv2d` writes each derivative as a forward convolution of itself instead, so that
derivatives of every order stay fast. Other back ends differentiate `lax.conv_general_dilated` their own way.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from robustgen.core import Array

Padding = tuple[tuple[int, int], tuple[int, int]]

_CANONICAL = ("NHWC", "HWIO", "NHWC")
_gradients = jax.make_user_context(default_value=None)  # part of jit's cache key, as a global would not be


def native_gradients():
    """Context in which `conv2d` is differentiated by XLA: needed for forward mode (`jax.jvp`, `jacfwd`, `linearize`),
    which the CPU's own derivatives refuse with a TypeError. Same values; slow inside loops on the CPU."""
    return _gradients("native")


def conv2d(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Cross-correlation of x [B, H, W, C] with kernel [h, w, C, D], zero-padded: [B, H', W', D]."""
    if _gradients.value == "native" or jax.default_backend() != "cpu":
        return _plain(x, kernel, stride, padding)
    return _conv(x, kernel, stride, padding)


def _plain(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_CANONICAL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return _plain(x, kernel, stride, padding)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: Padding, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    g = _dilate(g, stride)
    return _input_gradient(x, kernel, padding, g), _kernel_gradient(x, kernel, padding, g)


_conv.defvjp(_forward, _backward)


def _dilate(g: Array, stride: int) -> Array:
    """Zeros between the entries, so that what remains is the derivative of a convolution of stride 1."""
    inner = (0, 0, stride - 1)
    return g if stride == 1 else lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), inner, inner, (0, 0, 0)))


def _input_gradient(x: Array, kernel: Array, padding: Padding, g: Array) -> Array:
    """The full convolution of g with the kernel turned by 180 degrees, its channels exchanged."""
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    full = tuple(
        (k - 1 - low, n + low - m) for n, m, k, (low, _) in zip(x.shape[1:3], g.shape[1:3], kernel.shape, padding)
    )
    return _conv(g, flipped, 1, full)


def _kernel_gradient(x: Array, kernel: Array, padding: Padding, g: Array) -> Array:
    """x correlated with g: channels take the place of examples, examples of channels."""
    exact = tuple(
        (low, m + k - 1 - n - low) for n, m, k, (low, _) in zip(x.shape[1:3], g.shape[1:3], kernel.shape, padding)
    )
    return jnp.transpose(_conv(jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3)), 1, exact), (1, 2, 0, 3))
