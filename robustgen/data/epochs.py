"""Batches from a data set that lives on the device: what step `step` sees is a pure function of (key, step).

Every epoch has its own permutation of all examples, drawn from (key, epoch) and cut into batches; the last, partial
batch is dropped, other examples each time. So a resumed run, or one cut into other chunks, sees the same batches as one
that was never interrupted.

`batch_indices` is that definition. It sorts all N examples, so a loop carries an `Order` instead:

    order = order_at(key, step, num_examples=N, batch_size=B)
    def body(order, step):
        order = renew(order, key, step, batch_size=B)
        batch = take(split, indices(order, step, batch_size=B), scale)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.core import Array, Batch, Key
from robustgen.data.source import Split
from robustgen.knobs import Count, KnobError, checked

_ORDER = 0  # folded into the key first, so that other draws from the same key (augmentation: 1) share no number


class Order(NamedTuple):
    """The permutation [N] int32 in which epoch `epoch` (int32 scalar) goes through the examples."""

    epoch: Array
    permutation: Array


@checked
def steps_per_epoch(num_examples: Count, batch_size: Count) -> int:
    """Whole batches in one epoch. Raises `KnobError` where not even one fits."""
    if batch_size > num_examples:
        raise KnobError("batch_size", f"must not exceed the {num_examples} examples there are; got {batch_size}")
    return num_examples // batch_size


def batch_indices(key: Key, step: Array | int, *, num_examples: int, batch_size: int) -> Array:
    """Which examples step `step` sees, [B] int32, all different. Sorts all N: in a loop, carry an `Order`."""
    order = order_at(key, step, num_examples=num_examples, batch_size=batch_size)
    return indices(order, step, batch_size=batch_size)


def order_at(key: Key, step: Array | int, *, num_examples: int, batch_size: int) -> Order:
    """The order of the epoch that step `step` belongs to. `step` may be traced."""
    return _draw(key, _epoch(step, num_examples, batch_size), num_examples)


def renew(order: Order, key: Key, step: Array | int, *, batch_size: int) -> Order:
    """The order of `step`'s epoch: `order` itself where it is that already, so that only new epochs cost a sort.

    Under `vmap`, `key` may be mapped but `step` should not be: `lax.cond` on a mapped value computes both sides.
    """
    num_examples = order.permutation.shape[0]
    epoch = _epoch(step, num_examples, batch_size)
    permutation = jax.lax.cond(
        epoch == order.epoch, lambda: order.permutation, lambda: _draw(key, epoch, num_examples).permutation
    )
    return Order(epoch, permutation)


def indices(order: Order, step: Array | int, *, batch_size: int) -> Array:
    """The batch of step `step`, [B] int32, given its epoch's order."""
    batch = jnp.asarray(step, jnp.int32) % steps_per_epoch(order.permutation.shape[0], batch_size)
    return jax.lax.dynamic_slice_in_dim(order.permutation, batch * batch_size, batch_size)


def take(split: Split, indices: Array, scale: float) -> Batch:
    """The examples `indices` [B] of a split on the device, x float32 = stored * scale. Works inside jit."""
    return Batch(split.x[indices].astype(jnp.float32) * jnp.float32(scale), split.y[indices])


def _epoch(step: Array | int, num_examples: int, batch_size: int) -> Array:
    return jnp.asarray(step, jnp.int32) // steps_per_epoch(num_examples, batch_size)


def _draw(key: Key, epoch: Array, num_examples: int) -> Order:
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
    return Order(epoch, jax.random.permutation(epoch_key, jnp.arange(num_examples, dtype=jnp.int32)))
