"""Linen layers that all networks share, and the initialisations of the torch originals.

Parameters are float32. `dtype` is what a layer computes in: "bfloat16", or "float32" for the precision of its input.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from robustgen.core import Array, Key
from robustgen.knobs import Positive, Range
from robustgen.models.conv import conv2d

Dtype = Literal["float32", "bfloat16"]
Mean = tuple[Annotated[float, Range(-1e6)], ...]
Std = tuple[Positive, ...]
BiasInit = Callable[[int], nn.initializers.Initializer]

def torch_kernel(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """U(-a, a), a = 1 / sqrt(fan_in): the default of torch's Conv2d and Linear, kaiming_uniform_ with a = sqrt(5)."""
    return _flat(jax.random.uniform, key, shape, dtype, -1, 1) / math.sqrt(math.prod(shape[:-1]))


def he_normal(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """N(0, 2 / fan_in): torch's kaiming_normal_, which does not truncate as Linen's he_normal does."""
    return _flat(jax.random.normal, key, shape, dtype) * math.sqrt(2 / math.prod(shape[:-1]))


def he_normal_out(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """N(0, 2 / fan_out): what the wide residual networks are started with."""
    return _flat(jax.random.normal, key, shape, dtype) * math.sqrt(2 * shape[-2] / math.prod(shape))


def ibp_normal(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """N(0, 2 pi / fan_in^2), with which interval bounds are as wide behind a layer and its relu as before them: the
    start for certified training of all kernels but the last. Shi et al. 2021 (arXiv 2103.17268), section 3.1."""
    return _flat(jax.random.normal, key, shape, dtype) * math.sqrt(2 * math.pi) / math.prod(shape[:-1])


def _flat(draw: Callable[..., Array], key: Key, shape: tuple[int, ...], dtype: jnp.dtype, *limits: float) -> Array:
    """The same numbers as drawn in `shape`, which XLA's CPU compiler takes far longer for.

    That is 4.3 s against 0.2 s of CPU with jax 0.12, measured by
    `jax.jit(lambda key: jax.random.uniform(key, (3, 3, 16, 16))).lower(key).compile()`.
    """
    return draw(key, (math.prod(shape),), dtype, *limits).reshape(shape)


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """U(-a, a), a = 1 / sqrt(fan_in): the default of torch's Conv2d and Linear."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -1, 1) / math.sqrt(fan_in)


def zero_bias(fan_in: int) -> nn.initializers.Initializer:
    """All zero."""
    del fan_in
    return nn.initializers.zeros


def reduced(dtype: Dtype, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in one type: bfloat16 where asked for, else the widest among them."""
    return tuple(a.astype(jnp.bfloat16 if dtype == "bfloat16" else jnp.result_type(*arrays)) for a in arrays)


class Conv(nn.Module):
    """`conv2d` with a square kernel and the same zero padding on every side. NHWC."""

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    dtype: Dtype = "float32"
    kernel_init: nn.initializers.Initializer = torch_kernel
    bias_init: BiasInit | None = torch_bias

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        x, kernel = reduced(self.dtype, x, self.param("kernel", self.kernel_init, shape, jnp.float32))
        y = conv2d(x, kernel, stride=self.stride, padding=((self.padding, self.padding),) * 2)
        return y if self.bias_init is None else y + _bias(self, y, self.size**2 * x.shape[-1])


class Dense(nn.Module):
    """y = x W + b over the last axis."""

    features: int
    dtype: Dtype = "float32"
    kernel_init: nn.initializers.Initializer = torch_kernel
    bias_init: BiasInit = torch_bias

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        x, kernel = reduced(self.dtype, x, self.param("kernel", self.kernel_init, shape, jnp.float32))
        y = x @ kernel
        return y + _bias(self, y, x.shape[-1])


def _bias(layer: Conv | Dense, y: Array, fan_in: int) -> Array:
    bias = layer.param("bias", layer.bias_init(fan_in), (layer.features,), jnp.float32)
    return bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def normalize(x: Array, mean: Mean, std: Std) -> Array:
    """(x - mean) / std per channel, in the precision of x: only what is left of the subtraction may be rounded to
    bfloat16, whose spacing below 1 is half of 2/255. Empty tuples leave x as it is."""
    channels = (1,) * (x.ndim - 1) + (-1,)
    x = x - jnp.asarray(mean, x.dtype).reshape(channels) if mean else x
    return x / jnp.asarray(std, x.dtype).reshape(channels) if std else x
