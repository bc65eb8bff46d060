"""Equations that are taken apart before they are relaxed, because their parts have relaxations: `REWRITES`.

A rewrite gets the equation's parameters, the shapes of its operands and which of them are perturbed, and returns the
function to trace in its place, or None to leave it as it is. `{**REWRITES, "name": rewrite}` adds one of your own.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from robustgen.certify.interpreter import Rewrite
from robustgen.core import Array

Params = Mapping[str, Any]
Shapes = Sequence[jax.ShapeDtypeStruct]


def _div(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """a / b with b perturbed: a (1 / b)."""
    return (lambda a, b: a * lax.integer_pow(b, -1)) if perturbed[1] else None


def _pow(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """a ** b with both perturbed, for a > 0: exp(b log a)."""
    return (lambda a, b: jnp.exp(b * jnp.log(a))) if all(perturbed) else None


def _logaddexp(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """log(e^a + e^b) with both perturbed: b + softplus(a - b)."""
    return (lambda a, b: b + jax.nn.softplus(a - b)) if all(perturbed) else None


def _clamp(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """With perturbed ends: a minimum of a maximum."""
    if not perturbed[0] and not perturbed[2]:
        return None
    return lambda least, x, most: jnp.minimum(jnp.maximum(x, least), most)


def _softmax(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable:
    """exp(x - log sum exp(x)): nothing can overflow, and the shift by the largest entry is no part of it."""
    return lambda x: jnp.exp(_log_softmax(params, shapes, perturbed)(x))


def _log_softmax(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable:
    axis = params["axis"] % len(shapes[0].shape)
    return lambda x: x - jnp.expand_dims(jax.nn.logsumexp(x, (axis,)), axis)


def _logsumexp_kept(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable:
    """log sum exp that keeps the axes it reduces, with length 1."""
    axes = params["axes"]
    return lambda x: jnp.expand_dims(jax.nn.logsumexp(x, axes), axes)


def _dot_general(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """With both operands perturbed: all products of entries, then their sums."""
    if not all(perturbed):
        return None
    (contracted, batch) = params["dimension_numbers"]
    free = [
        [i for i in range(len(s.shape)) if i not in (*c, *b)] for s, c, b in zip(shapes, contracted, batch, strict=True)
    ]

    def product(a: Array, b: Array) -> Array:
        a, b = (jnp.transpose(v, (*batch[i], *free[i], *contracted[i])) for i, v in enumerate((a, b)))
        first, count = len(batch[0]), len(contracted[0])
        a = jnp.expand_dims(a, range(first + len(free[0]), first + len(free[0]) + len(free[1])))
        b = jnp.expand_dims(b, range(first, first + len(free[0])))
        shape = jnp.broadcast_shapes(a.shape, b.shape)
        products = jnp.broadcast_to(a, shape) * jnp.broadcast_to(b, shape)
        return jnp.sum(products, tuple(range(products.ndim - count, products.ndim)))

    return product


def _convolution(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
    """With both operands perturbed: the patches of the first, times the second, summed; None for grouped ones."""
    if not all(perturbed) or params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]

    def product(x: Array, kernel: Array) -> Array:
        patches = lax.conv_general_dilated_patches(
            x,
            [kernel.shape[i] for i in numbers.rhs_spec[2:]],
            params["window_strides"],
            params["padding"],
            lhs_dilation=params["lhs_dilation"],
            rhs_dilation=params["rhs_dilation"],
            dimension_numbers=numbers,
        )  # the channels of the result run over (channel, *window)
        patches = jnp.moveaxis(patches, numbers.out_spec[1], -1)
        flat = jnp.transpose(kernel, numbers.rhs_spec).reshape(kernel.shape[numbers.rhs_spec[0]], -1)
        return jnp.moveaxis(jnp.dot(patches, flat.T), -1, numbers.out_spec[1])

    return product


def _window(reduce: Callable, furthest: int) -> Rewrite:
    """A maximum (minimum) over windows: over a stack of slices, one for each place in the window.

    What lies outside is not infinite but as far out as numbers of the type may be summed, so that no product with a
    zero slope is undefined; every window must reach into the array, as those of pooling layers do.
    """

    def rewrite(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
        if any(n != 1 for n in params["base_dilation"]):
            return None
        size, strides, dilation = (params[f"window_{name}"] for name in ("dimensions", "strides", "dilation"))
        lowest = furthest * float(jnp.finfo(shapes[0].dtype).max) / 1024

        def pooled(x: Array) -> Array:
            if any(before or after for before, after in params["padding"]):
                x = jnp.pad(x, params["padding"], constant_values=lowest)
            ends = [n - (k - 1) * d for n, k, d in zip(x.shape, size, dilation, strict=True)]
            slices = []
            for place in itertools.product(*map(range, size)):
                begin = [p * d for p, d in zip(place, dilation, strict=True)]
                slices.append(lax.slice(x, begin, [b + e for b, e in zip(begin, ends, strict=True)], strides))
            return slices[0] if len(slices) == 1 else reduce(jnp.stack(slices, -1), -1)

        return pooled

    return rewrite


def _reduce_prod(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable:
    """Products of pairs, of pairs of them, and so on."""
    axes = tuple(params["axes"])

    def product(x: Array) -> Array:
        kept = [i for i in range(x.ndim) if i not in axes]
        x = jnp.transpose(x, (*axes, *kept)).reshape(math.prod(x.shape[i] for i in axes), *(x.shape[i] for i in kept))
        while len(x) > 1:
            half = len(x) // 2
            x = jnp.concatenate([x[:half] * x[half : 2 * half], x[2 * half :]])
        return x[0]

    return product


def _aligned(function: Callable, then: Rewrite = lambda params, shapes, perturbed: None) -> Rewrite:
    """A perturbed operand that is repeated along an axis: repeats it first, so that slopes have the result's shape."""

    def rewrite(params: Params, shapes: Shapes, perturbed: Sequence[bool]) -> Callable | None:
        shape = jnp.broadcast_shapes(*(s.shape for s in shapes))
        if all(s.shape == shape for s, p in zip(shapes, perturbed, strict=True) if p):
            return then(params, shapes, perturbed)

        def repeated(*operands: Array) -> Array:
            return function(*(jnp.broadcast_to(v, shape) if p else v for v, p in zip(operands, perturbed, strict=True)))

        return repeated

    return rewrite


REWRITES: Mapping[str, Rewrite] = MappingProxyType(
    {
        "add": _aligned(jnp.add),
        "sub": _aligned(jnp.subtract),
        "mul": _aligned(jnp.multiply),
        "max": _aligned(jnp.maximum),
        "min": _aligned(jnp.minimum),
        "div": _aligned(jnp.divide, _div),
        "pow": _aligned(jnp.power, _pow),
        "logaddexp": _logaddexp,
        "clamp": _clamp,
        "softmax": _softmax,
        "log_softmax": _log_softmax,
        "logsumexp_kept": _logsumexp_kept,
        "dot_general": _dot_general,
        "conv_general_dilated": _convolution,
        "reduce_prod": _reduce_prod,
        "reduce_window_max": _window(jnp.max, -1),
        "reduce_window_min": _window(jnp.min, 1),
    }
)
