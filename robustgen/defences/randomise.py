"""Defences that are random alone: noise, and random resizing and padding."""

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key
from robustgen.defences.transforms import Transform
from robustgen.knobs import Count, Fraction, KnobError, Positive, checked


@checked
def noise(*, sigma: Positive) -> Transform:
    """clip(x + sigma N(0, 1), 0, 1), for inputs of any shape. The adaptive attack is `eot`."""

    def add(x: Array, keys: Key) -> Array:
        drawn = jax.vmap(lambda key, row: jax.random.normal(key, row.shape, row.dtype))(keys, x)
        return jnp.clip(x + sigma * drawn, 0, 1)

    return add


@checked
def resize_pad(*, min_size: Count, out_size: Count, fill: Fraction = 0.0) -> Transform:
    """Square images x [B, S, S, C] resized to R x R and padded to [B, out_size, out_size, C], at random.

    Xie et al. 2018 (arXiv 1711.01991), section 3: R uniform on min_size ... out_size - 1, the nearest pixel taken as in
    the official code, then zeros around, the place uniform. The paper has S = 299, min_size 299 (the code 310) and
    out_size 331; the code also flips and averages 30 draws. Nets of a fixed input size take out_size = S, and shrink.

    It is differentiable (each output is an input), so the adaptive attack is `eot` alone. Raises `KnobError` where
    min_size >= out_size, `ValueError` for images that are not square.
    """
    if min_size >= out_size:
        raise KnobError("min_size", f"must be less than out_size = {out_size}; got {min_size}")

    def one(image: Array, key: Key) -> Array:
        size_key, place_key = jax.random.split(key)
        size = jax.random.randint(size_key, (), min_size, out_size)
        place = jax.random.randint(place_key, (2,), 0, out_size - size + 1)
        where = jnp.arange(out_size) - place[:, None]  # [2, out_size], rows and columns
        inside = (where >= 0) & (where < size)
        top, left = jnp.clip(where * image.shape[0] // size, 0, image.shape[0] - 1)
        taken = image[top][:, left]
        return jnp.where((inside[0][:, None] & inside[1])[..., None], taken, jnp.asarray(fill, image.dtype))

    def resize(x: Array, keys: Key) -> Array:
        if x.ndim != 4 or x.shape[1] != x.shape[2]:
            raise ValueError(f"resize_pad takes square images [B, S, S, C]; got {x.shape}")
        return jax.vmap(one)(x, keys)

    return resize
