"""The types that everything in robustgen is made of. Read this first.

One idea: a method is a plain function, and the types below say what it takes and gives.

    LogitsFn   x [B, ...] -> logits [B, K]                 all an attack or a certifier knows of a model
    Objective  (logits [B, K], target) -> [B]              what an attack maximises, per example
    Attack     (logits_fn, x, target, key) -> x_adv
    Loss       (net, batch, key) -> (scalar, Aux)          everything that trains
    Certifier  (logits_fn, x, y, key) -> Certificate
    Forward    (net, x, key) -> (logits, net)              one batch-norm and dropout policy

`x` is always raw: in [0, 1] for images, float32, normalised inside the model. Keys are `jax.random.key`s.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array
PyTree = Any

LogitsFn = Callable[[Array], Array]
Objective = Callable[[Array, PyTree], Array]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params", "state"], meta_fields=["apply_fn"])
@dataclasses.dataclass(frozen=True)
class Net:
    """A model with its numbers: a pytree, and itself a `LogitsFn`.

    `params` are trained; `state` is what forward passes carry along (batch statistics). `apply_fn` is Linen's
    `module.apply` or any function of the same form: `apply_fn({"params": params, **state}, x, train=..., ...)`.
    """

    params: PyTree
    state: PyTree
    apply_fn: Callable

    def __call__(self, x: Array) -> Array:
        """Logits [B, K] in float32, in evaluation mode: running statistics, no dropout."""
        return _full_precision(self.apply_fn({"params": self.params, **self.state}, x, train=False))

    def train(self, x: Array, key: Key) -> tuple[Array, "Net"]:
        """Logits [B, K] in training mode (batch statistics, dropout from `key`), and the net that has seen `x`."""
        mutable = list(self.state)
        logits, state = self.apply_fn(
            {"params": self.params, **self.state}, x, train=True, mutable=mutable, rngs={"dropout": key}
        )
        return _full_precision(logits), dataclasses.replace(self, state=dict(state))


def _full_precision(logits: Array) -> Array:
    """Losses and margins are never computed in half precision, whatever the net computes in."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class Forward(Protocol):
    """One policy for batch norm and dropout: `eval_forward`, `batch_forward` or `train_forward`."""

    def __call__(self, net: Net, x: Array, key: Key) -> tuple[Array, Net]: ...


def eval_forward(net: Net, x: Array, key: Key) -> tuple[Array, Net]:
    """Running statistics, no dropout, nothing updated."""
    del key
    return net(x), net


def batch_forward(net: Net, x: Array, key: Key) -> tuple[Array, Net]:
    """Statistics of this batch, dropout on, running statistics left as they were."""
    return net.train(x, key)[0], net


def train_forward(net: Net, x: Array, key: Key) -> tuple[Array, Net]:
    """Statistics of this batch, dropout on, running statistics updated."""
    return net.train(x, key)


class Threat(NamedTuple):
    """The set of inputs an adversary may put in place of `x`, given as pure functions.

    sample(x, keys [B])      a random member, per-example keys
    project(x, x_adv)        the member nearest to `x_adv`; never outside the set, even when checked in float64
    ascend(gradient, step)   the step of size `step` that a linear objective grows fastest along
    bounds(x)                (lower, upper), the smallest box around the set
    support(A, x)            max <A, x'> over members x', for A [..., *x.shape] -> [..., B]; exact, or an upper bound
                             where the factory says so: a linear bound concretizes for every norm without asking which
    is_box                  whether the set is all of its box `bounds`, so that coordinates may be looked at one by one
    """

    sample: Callable[[Array, Key], Array]
    project: Callable[[Array, Array], Array]
    ascend: Callable[[Array, Array], Array]
    bounds: Callable[[Array], tuple[Array, Array]]
    support: Callable[[Array, Array], Array]
    is_box: bool = False


class Attack(Protocol):
    """Looks for a member of a threat set that makes an objective large.

    `target` is what the objective compares with: labels [B] int32, clean logits [B, K], ...
    `key` is one key, or per-example keys [B] (see `spread.example_keys`). Returns x_adv, shaped like x.
    """

    def __call__(self, logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array: ...


class Aux(NamedTuple):
    """What a loss hands back beside its value: the new `Net.state`, and scalars to log."""

    state: PyTree
    metrics: dict[str, Array]


class Batch(NamedTuple):
    """A supervised batch: x [B, ...] float32, y [B] int32. Losses of other kinds may take any pytree."""

    x: Array
    y: Array


class Stream(NamedTuple):
    """Batches as a pure function of (key, step). The carry is what one step may hand to the next to save work.

    start(key, step) -> carry                    for any step: where a run is resumed does not show in its batches
    take(carry, key, step) -> (batch, carry)     the batch of `step` (on this device, its rows of the global batch)
    """

    start: Callable[[Key, Array], PyTree]
    take: Callable[[PyTree, Key, Array], tuple[PyTree, PyTree]]


class Loss(Protocol):
    """Everything that trains. Returns the scalar to minimise (a mean over the batch) and `Aux`."""

    def __call__(self, net: Net, batch: PyTree, key: Key) -> tuple[Array, Aux]: ...


class Interval(NamedTuple):
    """Element-wise bounds lower <= value <= upper, of one shape."""

    lower: Array
    upper: Array


VERIFIED, UNKNOWN, FALSIFIED = 1, 0, -1


class Certificate(NamedTuple):
    """What a certifier says of each example.

    status [B] int32         VERIFIED: no member of the set changes the class; FALSIFIED: `x_adv` does; else UNKNOWN
    margin_lower [B]         lower bound of logit_y - max other logit over the set
    radius [B] | None        largest certified radius, for certifiers that find one
    x_adv [B, ...] | None    counterexamples, where falsified
    sound [B] bool | None    whether it holds for the network as executed, every rounding error taken off
    """

    status: Array
    margin_lower: Array
    radius: Array | None = None
    x_adv: Array | None = None
    sound: Array | None = None


class Certifier(Protocol):
    """Proves, for each example, that no member of a threat set changes the predicted class from `y`."""

    def __call__(self, logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate: ...


class TrainState(NamedTuple):
    """All that training carries: arrays only, so a checkpoint is this one pytree.

    `key` is raw key data (uint32); `ema` is {} or averaged {"params", "state"}.
    """

    step: Array
    params: PyTree
    state: PyTree
    opt_state: PyTree
    ema: PyTree
    key: Array


class Estimate(NamedTuple):
    """A measured number with its 95 % interval and the number of examples (or seeds) behind it."""

    value: float
    lower: float
    upper: float
    n: int
