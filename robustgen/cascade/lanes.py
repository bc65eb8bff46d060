"""One compiled step of fixed width: every slot holds a run of its own, at a step of its own, of one attack.

The width never changes, so nothing recompiles as survivors shrink; and since a row's floating-point numbers may depend
on the width it is computed in (matrix kernels treat their edges apart), never on its place in a multiple of 32,
outcomes do not depend on how many examples there are, or in which order. Several devices run one such width each.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robustgen.attacks.search import Item, Search, run_key, vote
from robustgen.core import Array, LogitsFn, PyTree
from robustgen.spread import DATA_AXIS


class Examples(NamedTuple):
    """What slots are filled from: x [N, ...], y [N], classes [N, K] by rank (`search.targets`), keys [N]."""

    x: Array
    y: Array
    classes: Array
    keys: Array


class Slots(NamedTuple):
    """The state of all slots, [S, ...]: `t` steps done, `broken` where a member of the set that is misclassified was
    found: x_adv, at evaluation t (from 1)."""

    item: Item
    memory: PyTree
    t: Array
    broken: Array
    x_adv: Array


class Order(NamedTuple):
    """Host arrays [S] that say which slots to fill, each with which row of the examples, target rank and restart."""

    fill: np.ndarray
    row: np.ndarray
    rank: np.ndarray
    restart: np.ndarray


class Lanes(NamedTuple):
    """A search, compiled. fill(slots | None, examples, order) -> slots; advance(net, slots, go_on [S]) -> slots, where
    `go_on` marks slots whose find was not confirmed; forward(net, x [S, ...]) -> logits, in the width of the slots."""

    num_slots: int
    fill: Callable[[Slots | None, Examples, Order], Slots]
    advance: Callable[[LogitsFn, Slots, np.ndarray], Slots]
    forward: Callable[[LogitsFn, Array], Array]


def mesh_of(devices: list) -> Mesh:
    """A mesh with one axis, over which slots are spread."""
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def lanes(search: Search, *, width: int, mesh: Mesh, stride: int) -> Lanes:
    """`width` slots on every device of `mesh`; `advance` makes up to `stride` steps. Equal arguments compile once."""
    return _lanes(search.begin, search.step, search.num_steps, width, mesh, stride)


@functools.lru_cache(maxsize=64)
def _lanes(begin: Callable, step: Callable, num_steps: int, width: int, mesh: Mesh, stride: int) -> Lanes:
    rows, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec()

    def on_devices(fn: Callable, *specs: PartitionSpec) -> Callable:
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)

    start = jax.jit(on_devices(functools.partial(_fresh, begin), everywhere, rows))
    refill = jax.jit(on_devices(functools.partial(_filled, begin), rows, everywhere, rows), donate_argnums=0)
    steps = functools.partial(_steps, step, num_steps, stride)
    advance = jax.jit(on_devices(steps, everywhere, rows, rows), donate_argnums=1)

    def fill(slots: Slots | None, examples: Examples, order: Order) -> Slots:
        return start(examples, order) if slots is None else refill(slots, examples, order)

    return Lanes(width * mesh.size, fill, advance, forward(mesh))


@functools.lru_cache(maxsize=8)
def forward(mesh: Mesh) -> Callable[[LogitsFn, Array], Array]:
    """(net, x [S, ...]) -> logits, S as wide as the slots: in the same width, so with the same numbers, everywhere."""
    rows, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec()
    specs = {"in_specs": (everywhere, rows), "out_specs": rows}
    return jax.jit(jax.shard_map(lambda net, x: vote(net(x)), mesh=mesh, **specs, check_vma=False))


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """A copy on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _fresh(begin: Callable, examples: Examples, order: Order) -> Slots:
    x, y = examples.x[order.row], examples.y[order.row]
    target = jnp.take_along_axis(examples.classes[order.row], order.rank[:, None], axis=1)[:, 0]
    item = Item(x, y, target, order.restart, run_key(examples.keys[order.row], order.rank, order.restart))
    return Slots(item, begin(item), jnp.zeros(len(y), jnp.int32), ~order.fill, x)


def _filled(begin: Callable, slots: Slots, examples: Examples, order: Order) -> Slots:
    fresh = _fresh(begin, examples, order)
    return jax.tree.map(lambda new, old: jnp.where(_rows(order.fill, new), new, old), fresh, slots)


def _steps(step: Callable, num_steps: int, stride: int, net: LogitsFn, slots: Slots, go_on: Array) -> Slots:
    slots = slots._replace(broken=slots.broken & ~go_on)
    if stride == 1:
        return _one_step(step, num_steps, net, slots)

    def running(carry: tuple[Array, Slots]) -> Array:
        return (carry[0] < stride) & jnp.any(~carry[1].broken & (carry[1].t < num_steps))

    def body(carry: tuple[Array, Slots]) -> tuple[Array, Slots]:
        return carry[0] + 1, _one_step(step, num_steps, net, carry[1])

    return jax.lax.while_loop(running, body, (jnp.int32(0), slots))[1]


def _one_step(step: Callable, num_steps: int, net: LogitsFn, slots: Slots) -> Slots:
    """Rows that are done keep everything as it is: one whose find is not confirmed goes on from there."""
    active = ~slots.broken & (slots.t < num_steps)
    memory, tried = step(net, slots.item, slots.t, slots.memory)
    hit = active & tried.inside & misclassified(tried.logits, slots.item.y)
    x_adv = jnp.where(_rows(hit, tried.x), tried.x, slots.x_adv)
    memory = jax.tree.map(lambda new, old: jnp.where(_rows(active, new), new, old), memory, slots.memory)
    return Slots(slots.item, memory, slots.t + active, slots.broken | hit, x_adv)


def misclassified(logits: Array, y: Array) -> Array:
    """[B] bool. Logits that are not finite are a wrong answer, as everywhere in `evaluation`."""
    logits = vote(logits)
    return (jnp.argmax(logits, -1) != y) | ~jnp.all(jnp.isfinite(logits), -1)


def _rows(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - 1))
