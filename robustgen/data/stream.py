"""The training batches of a split on the device, as the `core.Stream` that a training step takes from."""

from collections.abc import Callable

import jax

from robustgen.core import Array, Batch, Key, Stream
from robustgen.data.augment import Augment, none
from robustgen.data.epochs import Order, indices, order_at, renew, steps_per_epoch, take
from robustgen.data.source import Split
from robustgen.spread import example_keys

_AUGMENT = 2**31 - 1  # folded into the key of augmentation; permutations fold in their epoch, which stays below
_AS_THEY_ARE = none()


def stream(
    split: Split,
    scale: float,
    *,
    batch_size: int,
    augment: Augment = _AS_THEY_ARE,
    spread: Callable[[Array], Array] = lambda rows: rows,
) -> Stream:
    """Shuffled epochs of `split` in batches of `batch_size`, x = stored * scale, augmented.

    `spread` is a parallel back end's share of the batch: it is applied to the indices, so that each device gathers and
    augments its own rows only. Augmentation keys go by position in the global batch, so devices do not matter.
    """
    num_examples = split.x.shape[0]
    steps_per_epoch(num_examples, batch_size)  # raises where not even one batch fits

    def start(key: Key, step: Array) -> Order:
        return order_at(key, step, num_examples=num_examples, batch_size=batch_size)

    def next_batch(order: Order, key: Key, step: Array) -> tuple[Batch, Order]:
        order = renew(order, key, step, batch_size=batch_size)
        rows = spread(indices(order, step, batch_size=batch_size))
        x, y = take(split, rows, scale)
        step_key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENT), step)
        return Batch(augment(x, example_keys(step_key, x.shape[0])), y), order

    return Stream(start, next_batch)
