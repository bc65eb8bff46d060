"""One compiled step of fixed width: every slot holds a run of its own, at a step of its own, of one attack.

The width never changes, so nothing recompiles as survivors shrink; and since a row's floating-point numbers may depend
on the width it is computed in (matrix kernels treat their edges apart), never on its place in a multiple of 32,
outcomes do not depend on how many examples there are, or in which order. Several devices run one such width each.
Idle slots help those that are left, where the search is a random one (`teams`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robustgen.attacks.search import Item, Search, run_key, vote
from robustgen.cascade.teams import Outcome, Teams, agreed, formed, gathered
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
    found: x_adv, at evaluation t (from 1). Keys as raw numbers, which are handed to and fro faster."""

    item: Item
    memory: PyTree
    t: Array
    broken: Array
    x_adv: Array


class Order(NamedTuple):
    """Host arrays [M] that say which slots to fill, each with which row of the examples, target rank and restart."""

    slot: np.ndarray
    row: np.ndarray
    rank: np.ndarray
    restart: np.ndarray


class Lanes(NamedTuple):
    """A search, compiled. empty(examples) -> slots, all idle; fill(slots, examples, order) -> slots;
    advance(net, slots, go_on [S]) -> slots, where `go_on` marks slots whose find was not confirmed;
    forward(net, x [S, ...]) -> logits, in the width of the slots."""

    num_slots: int
    empty: Callable[[Examples], Slots]
    fill: Callable[[Slots, Examples, Order], Slots]
    advance: Callable[[LogitsFn, Slots, np.ndarray], Slots]
    forward: Callable[[LogitsFn, Array], Array]


def mesh_of(devices: list) -> Mesh:
    """A mesh with one axis, over which slots are spread."""
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def lanes(search: Search, *, width: int, mesh: Mesh, stride: int) -> Lanes:
    """`width` slots on every device of `mesh`; `advance` makes up to `stride` steps. Equal arguments compile once."""
    return _lanes(search.begin, search.step, search.num_steps, width, mesh, stride, not search.backwards)


@functools.lru_cache(maxsize=64)
def _lanes(begin: Callable, step: Callable, num_steps: int, width: int, mesh: Mesh, stride: int, helped: bool) -> Lanes:
    fresh = functools.partial(_fresh, begin)
    refill = jax.jit(_on_devices(mesh, functools.partial(_filled, fresh), "rer"), donate_argnums=0)
    steps = functools.partial(_steps, step, num_steps, stride, helped)
    advance = jax.jit(_on_devices(mesh, steps, "err"), donate_argnums=1)

    def empty(examples: Examples) -> Slots:
        some = jax.eval_shape(fresh, examples, Order(*[np.zeros(1, np.int32)] * 4))
        idle = jax.tree.map(lambda leaf: np.zeros((width * mesh.size, *leaf.shape[1:]), leaf.dtype), some)
        return place(idle._replace(broken=~idle.broken), mesh, PartitionSpec(DATA_AXIS))

    def fill(slots: Slots, examples: Examples, order: Order) -> Slots:
        for part in _parts(order, width, mesh.size):
            slots = refill(slots, examples, part)
        return slots

    return Lanes(width * mesh.size, empty, fill, advance, forward(mesh))


@functools.lru_cache(maxsize=8)
def forward(mesh: Mesh) -> Callable[[LogitsFn, Array], Array]:
    """(net, x [S, ...]) -> logits, S as wide as the slots: in the same width, so with the same numbers, everywhere."""
    run = jax.jit(_on_devices(mesh, lambda net, x: vote(net(x)), "er"))
    return lambda net, x: run(net, place(x, mesh, PartitionSpec(DATA_AXIS)))


def place(tree: PyTree, mesh: Mesh, spec: PartitionSpec = PartitionSpec()) -> PyTree:  # noqa: B008
    """A copy on every device, or spread over them."""
    one = mesh.devices.flat[0] if mesh.size == 1 else None
    return jax.device_put(tree, one or NamedSharding(mesh, spec))


def _on_devices(mesh: Mesh, fn: Callable, arguments: str) -> Callable:
    """`fn` on each device's rows. `arguments`: r for one of which each has its rows, e for one that is everywhere. On a
    single device as it is: to enter a `shard_map` takes the host half a millisecond."""
    if mesh.size == 1:
        return fn
    specs = {"r": PartitionSpec(DATA_AXIS), "e": PartitionSpec()}
    in_specs = tuple(specs[argument] for argument in arguments)
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=specs["r"], check_vma=False)


def _parts(order: Order, width: int, num_devices: int) -> Iterator[Order]:
    """The order in parts of one size, a quarter of the slots, which name each device's slots from 0: what costs is
    where a run begins, whatever the slots that wait for none. Slots beyond the last are none."""
    size = width // 4
    waiting = [np.flatnonzero(order.slot // width == device) for device in range(num_devices)]
    for start in range(0, max(map(len, waiting)), size):
        part = Order(*(np.zeros((num_devices, size), np.int32) for _ in order))
        part.slot[:] = width
        for device, places in enumerate(waiting):
            chosen = places[start : start + size]
            for column, values in zip(part, order._replace(slot=order.slot % width), strict=True):
                column[device, : len(chosen)] = values[chosen]
        yield Order(*(column.reshape(-1) for column in part))


def _fresh(begin: Callable, examples: Examples, order: Order) -> Slots:
    x, y = examples.x[order.row], examples.y[order.row]
    target = jnp.take_along_axis(examples.classes[order.row], order.rank[:, None], axis=1)[:, 0]
    item = Item(x, y, target, order.restart, run_key(examples.keys[order.row], order.rank, order.restart))
    memory = begin(item)
    raw = item._replace(key=jax.random.key_data(item.key))
    return Slots(raw, memory, jnp.zeros(len(y), jnp.int32), jnp.zeros(len(y), bool), x)


def _filled(fresh: Callable, slots: Slots, examples: Examples, order: Order) -> Slots:
    new = fresh(examples, order)
    return jax.tree.map(lambda old, rows: old.at[order.slot].set(rows, mode="drop"), slots, new)


def _steps(
    step: Callable, num_steps: int, stride: int, helped: bool, net: LogitsFn, slots: Slots, go_on: Array
) -> Slots:
    slots = slots._replace(broken=slots.broken & ~go_on)
    teams = formed(_active(slots, num_steps)) if helped else None
    if helped:
        item, memory = gathered(teams, (slots.item, slots.memory))
        slots = slots._replace(item=item, memory=memory)
    if stride == 1:
        return _one_step(step, num_steps, teams, net, slots)

    def running(carry: tuple[Array, Slots]) -> Array:
        return (carry[0] < stride) & jnp.any(_active(carry[1], num_steps))

    def body(carry: tuple[Array, Slots]) -> tuple[Array, Slots]:
        return carry[0] + 1, _one_step(step, num_steps, teams, net, carry[1])

    return jax.lax.while_loop(running, body, (jnp.int32(0), slots))[1]


def _active(slots: Slots, num_steps: int) -> Array:
    return ~slots.broken & (slots.t < num_steps)


def _one_step(step: Callable, num_steps: int, teams: Teams | None, net: LogitsFn, slots: Slots) -> Slots:
    """Rows that are done keep everything as it is: one whose find is not confirmed goes on from there."""
    active = _active(slots, num_steps)
    team_active, t = (active, slots.t) if teams is None else gathered(teams, (active, slots.t))
    item = slots.item._replace(key=jax.random.wrap_key_data(slots.item.key))
    memory, tried = step(net, item, t if teams is None else t + teams.ahead, slots.memory)
    found = tried.inside & misclassified(tried.logits, slots.item.y)
    outcome = Outcome(memory, tried.x, found, jnp.ones_like(t))
    if teams is not None:
        outcome = agreed(teams, slots.memory, outcome, num_steps - slots.t)
    hit = active & outcome.found
    x_adv = jnp.where(_rows(hit, tried.x), outcome.x, slots.x_adv)
    memory = jax.tree.map(lambda new, old: jnp.where(_rows(team_active, new), new, old), outcome.memory, slots.memory)
    return Slots(slots.item, memory, slots.t + active * outcome.steps, slots.broken | hit, x_adv)


def misclassified(logits: Array, y: Array) -> Array:
    """[B] bool. Logits that are not finite are a wrong answer, as everywhere in `evaluation`."""
    logits = vote(logits)
    return (jnp.argmax(logits, -1) != y) | ~jnp.all(jnp.isfinite(logits), -1)


def _rows(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - 1))
