"""Pooling, NHWC, over windows that do not overlap, with gradients that XLA's CPU back end runs fast."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustgen.core import Array


def max_pool(x: Array, *, size: int) -> Array:
    """Largest entry of each size x size window of x [B, H, W, C]; rows and columns left over at the end are dropped.

    On the CPU a maximum over reshaped windows, since XLA's own gradient (select and scatter) is slow there. Where
    entries of a window tie, it splits the gradient evenly among them; XLA and torch give all of it to the first.
    """
    if jax.default_backend() != "cpu":
        return nn.max_pool(x, (size, size), (size, size))
    B, H, W, C = x.shape
    x = x[:, : H // size * size, : W // size * size]
    return jnp.max(x.reshape(B, H // size, size, W // size, size, C), (2, 4))


def global_mean_pool(x: Array) -> Array:
    """Mean over height and width, [B, C], in float32 at least."""
    return jnp.mean(x, (1, 2), jnp.promote_types(x.dtype, jnp.float32))
