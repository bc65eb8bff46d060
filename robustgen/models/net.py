"""From a Linen module to the `core.Net` that everything else works with."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from robustgen.core import Key, Net


def init(module: nn.Module, shape: tuple[int, ...], key: Key) -> Net:
    """A net with fresh parameters, for inputs of `shape` (one example's, without the batch axis).

    Every collection but `params` (batch statistics) becomes `Net.state`.
    """
    variables = dict(jax.jit(functools.partial(module.init, train=False))(key, jnp.zeros((1, *shape))))
    return Net(params=variables.pop("params"), state=variables, apply_fn=module.apply)
