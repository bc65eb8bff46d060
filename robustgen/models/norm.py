"""Batch normalisation whose statistics are those of the whole batch, however it is spread over devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from robustgen.core import Array
from robustgen.spread import DATA_AXIS, data_shard, mean_over_devices

MOMENTUM, EPSILON = 0.9, 1e-5
"""torch's defaults; its momentum of 0.1 is the share of the new value, this one that of the old."""


class BatchNorm(nn.Module):
    """Batch normalisation over the last axis (Ioffe & Szegedy 2015, arXiv 1502.03167), as torch's BatchNorm2d.

    Training uses mean and biased variance of the batch, and moves the running ones (collection `batch_stats`), the
    variance towards the unbiased n / (n - 1) estimate: as torch does and Linen's BatchNorm does not. Evaluation uses
    the running ones. Statistics are float32; the output has the type of x.
    """

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if not train:
            return _affine(x, mean.value, var.value, scale, bias)
        now_mean, now_var, unbiased = batch_statistics(x)
        if self.is_mutable_collection("batch_stats"):
            mean.value = _moved(mean.value, now_mean)
            var.value = _moved(var.value, unbiased)
        return _affine(x, now_mean, now_var, scale, bias)


def batch_statistics(x: Array) -> tuple[Array, Array, Array]:
    """Mean, biased and unbiased variance over all but the last axis, [C] each, float32 at least.

    Over the global batch: under `jit` x is the global array; under `shard_map` and `pmap` devices are averaged over.
    """
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = mean_over_devices(jnp.mean(x, axes))
    var = mean_over_devices(jnp.mean(jnp.square(x - mean.reshape(_channels(x))), axes))
    n = x[..., 0].size * (1 if data_shard() is None else jax.lax.axis_size(DATA_AXIS))
    return mean, var, var * (n / max(n - 1, 1))


def _moved(running: Array, now: Array) -> Array:
    return MOMENTUM * running + (1 - MOMENTUM) * jax.lax.stop_gradient(now).astype(running.dtype)


def _affine(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
    """The mean is subtracted first: x * factor + (bias - mean * factor) would cancel digits where it is large."""
    mean, factor, bias = (v.reshape(_channels(x)) for v in (mean, scale * jax.lax.rsqrt(var + EPSILON), bias))
    return ((x - mean) * factor + bias).astype(x.dtype)


def _channels(x: Array) -> tuple[int, ...]:
    return (1,) * (x.ndim - 1) + (-1,)
