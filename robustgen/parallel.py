"""One global-batch step, run by `jit` with shardings (the default), by `shard_map` or by `pmap`: same numbers.

A step is written once, for the global batch. It takes its rows with `spread.local_rows` and averages with
`spread.mean_over_devices`, which do nothing unless a data axis is mapped; a `Backend` decides whether one is.
`members` spreads the nets of a population instead, which never talk.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robustgen.core import PyTree
from robustgen.knobs import Count, KnobError, checked
from robustgen.spread import DATA_AXIS, MEMBER_AXIS, local_rows


class Backend(NamedTuple):
    """How a step of the form `(carry, data) -> (carry, out)` runs on `num_devices` devices.

    compile(step)    the compiled step; its first argument is donated: use only what it returns
    spread(rows)     called inside the step on the rows of a global batch (indices, say): this device's share
    place(tree)      host arrays as the compiled step wants them: a copy on every device
    """

    num_devices: int
    compile: Callable[[Callable], Callable]
    spread: Callable[[jax.Array], jax.Array]
    place: Callable[[PyTree], PyTree]


@checked
def jit(*, num_devices: Count | None = None) -> Backend:
    """`jax.jit` over a mesh: the compiler spreads the work along the batch. Batch norm is over the global batch."""
    mesh = _mesh(num_devices)
    rows, everywhere = NamedSharding(mesh, PartitionSpec(DATA_AXIS)), NamedSharding(mesh, PartitionSpec())
    return Backend(
        num_devices=mesh.size,
        compile=lambda step: jax.jit(step, donate_argnums=0, out_shardings=everywhere),
        spread=lambda x: jax.lax.with_sharding_constraint(x, rows),
        place=lambda tree: _place(tree, everywhere),
    )


@checked
def shard_map(*, num_devices: Count | None = None) -> Backend:
    """`jax.shard_map`: every device runs the step on its rows, gradients are averaged explicitly."""
    mesh = _mesh(num_devices)
    everywhere = PartitionSpec()

    def compile(step: Callable) -> Callable:
        # check_vma=False: no implicit psum of gradients of replicated parameters; the step's own mean is the only one
        mapped = jax.shard_map(
            step, mesh=mesh, in_specs=(everywhere, everywhere), out_specs=everywhere, check_vma=False
        )
        return jax.jit(mapped, donate_argnums=0)

    return Backend(mesh.size, compile, local_rows, lambda tree: _place(tree, NamedSharding(mesh, everywhere)))


@checked
def pmap(*, num_devices: Count | None = None) -> Backend:
    """`jax.pmap`, which jax keeps for old code: the same as `shard_map`, on this process's devices."""
    devices = _devices(num_devices)

    def compile(step: Callable) -> Callable:
        def on_device(_: jax.Array, carry: PyTree, data: PyTree) -> PyTree:
            return step(carry, data)

        mapped = jax.pmap(on_device, axis_name=DATA_AXIS, in_axes=(0, None, None), out_axes=None, devices=devices)
        return functools.partial(mapped, np.arange(len(devices)))  # pmap wants one argument that is mapped

    return Backend(len(devices), compile, local_rows, lambda tree: tree)


@checked
def members(num_members: Count) -> Backend:
    """Every device trains a share of a population of `num_members`; on as many of this process's devices as can share
    it equally. Leaves of the carry are [P, ...], or scalars common to all; what the step puts out is [P, ...].

    Several processes train the whole population each.
    """
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_members % n == 0)
    mesh = jax.make_mesh((count,), (MEMBER_AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])
    shares, whole = PartitionSpec(MEMBER_AXIS), PartitionSpec()

    def specs(carry: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: shares if leaf.ndim else whole, carry)

    def compile(step: Callable) -> Callable:
        def on_device(carry: PyTree, data: PyTree) -> tuple[PyTree, PyTree]:
            mapped = jax.shard_map(
                step, mesh=mesh, in_specs=(specs(carry), whole), out_specs=(specs(carry), shares), check_vma=False
            )
            return mapped(carry, data)

        compiled = jax.jit(on_device, donate_argnums=0)

        def run(carry: PyTree, data: PyTree) -> tuple[PyTree, PyTree]:
            where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(carry))
            return compiled(jax.device_put(carry, where), data)  # moves what `place` left on every device, once

        return run

    return Backend(count, compile, lambda rows: rows, lambda tree: _place(tree, NamedSharding(mesh, whole)))


def use_cores() -> None:
    """Makes each core a device, for `members`, where XLA's CPU back end would be one device; before any use of it.

    A small net keeps one core busy, and on all cores it waits for threads. JAX_NUM_CPU_DEVICES and XLA_FLAGS are obeyed
    where they say another number.
    """
    if jax.config.jax_num_cpu_devices < 0 and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # a device was used already: those that there are stay
            jax.config.update("jax_num_cpu_devices", os.cpu_count())


def join(coordinator: str, num_processes: int | None, process: int | None) -> None:
    """Makes this one of several processes that train together; before any other use of a device.

    `coordinator` is HOST:PORT of process 0, or "auto" where the cluster (TPU pod, SLURM) tells everything itself.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if num_processes is None or process is None:
        raise KnobError("coordinator", "needs --processes and --process beside it")
    jax.distributed.initialize(coordinator, num_processes=num_processes, process_id=process)


def on_this_process(tree: PyTree) -> PyTree:
    """A tree that is whole on every process as arrays of this process alone, for work that processes do not share;
    members of a population that devices share are gathered on one."""

    def here(leaf: jax.Array) -> jax.Array:
        return leaf if jax.process_count() == 1 and leaf.is_fully_replicated else jnp.asarray(np.asarray(leaf))

    return jax.tree.map(here, tree)


def any_process(flag: bool) -> bool:
    """Whether `flag` holds on any process; all must ask at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Numpy first: with several processes, `device_put` of a process-local jax array to a global mesh is refused."""
    return jax.device_put(jax.tree.map(np.asarray, tree), sharding)


def _mesh(num_devices: int | None) -> Mesh:
    devices = _devices(num_devices)
    # Explicit axes (jax's default since 0.9) refuse the gather of a cross-entropy's backward pass
    return jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def _devices(num_devices: int | None) -> list:
    devices = jax.devices()
    if num_devices is not None and num_devices > len(devices):
        raise KnobError("num_devices", f"must be at most {len(devices)}, the devices there are; got {num_devices}")
    return devices[:num_devices]
