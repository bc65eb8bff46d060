"""Defences that change the input before the model sees it: `Transform = (x [B, ...], keys [B]) -> x'`.

A randomised defence is no `LogitsFn`, since it needs a key for each input; its type is

    RandomLogitsFn   (x [B, ...], key) -> logits [B, K]     `key` is one key, or per-example keys [B]

`defended(transform)(logits_fn)` gives one, for deterministic transforms too (they ignore the keys), and `fixed` turns
it into a `LogitsFn` by deciding the key. None of these defences is known to withstand an adaptive attack; each
factory names the one that breaks it (`attacks.against`, `attacks.bpda`, `attacks.eot`).
"""

from collections.abc import Callable
from typing import Protocol

import jax

from robustgen.core import Array, Key, LogitsFn
from robustgen.spread import example_keys

RandomLogitsFn = Callable[[Array, Key], Array]


class Transform(Protocol):
    """(x [B, ...] in [0, 1], keys [B]) -> x' [B, ...] in [0, 1], each example by itself and by its own key."""

    def __call__(self, x: Array, keys: Key) -> Array: ...


def compose(*transforms: Transform) -> Transform:
    """One after the other, the first first; each draws from keys of its own."""

    def composed(x: Array, keys: Key) -> Array:
        for index, transform in enumerate(transforms):
            x = transform(x, jax.vmap(jax.random.fold_in, (0, None))(keys, index))
        return x

    return composed


def defended(transform: Transform) -> Callable[[LogitsFn], RandomLogitsFn]:
    """Puts `transform` before a model."""

    def defend(logits_fn: LogitsFn) -> RandomLogitsFn:
        return lambda x, key: logits_fn(transform(x, example_keys(key, x.shape[0])))

    return defend


def fixed(random_logits_fn: RandomLogitsFn, key: Key) -> LogitsFn:
    """The model of one draw: an example meets the same randomness at each call, as long as it keeps its place."""
    return lambda x: random_logits_fn(x, key)
