"""One step, run by each back end on eight devices, is the step of a single device: in double precision, to 1e-12.

In single precision it cannot be: one gradient that rounds to the other sign moves an attack by a whole step.
"""

import functools
import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import parallel
from robustgen.knobs import KnobError
from robustgen.spread import local_rows

SCRIPT = pathlib.Path(__file__).with_name("sharded.py")
SPEC = importlib.util.spec_from_file_location("sharded", SCRIPT)
sharded = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sharded)

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


@functools.cache
def alone(model):
    return sharded.five_steps(parallel.jit(num_devices=1), sharded.MODULES[model])


@pytest.mark.parametrize("model", sharded.MODULES)
@pytest.mark.parametrize("backend", [parallel.jit, parallel.shard_map, parallel.pmap], ids=lambda b: b.__name__)
def test_eight_devices_are_one(backend, model, x64):
    eight = backend()
    assert eight.num_devices == 8
    state, metrics = sharded.five_steps(eight, sharded.MODULES[model])
    jax.tree.map(close, (state, metrics), alone(model))
    assert metrics["loss"].shape == (5,) and np.all(metrics["kl"] > 1e-6)


def test_two_processes_are_one(tmp_path, x64):
    """Over jax.distributed on loopback, four devices each; a process that hangs is ended after two minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = str(SCRIPT.parents[1])
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), port, str(process), str(tmp_path / f"{process}.npz")],
            env={**os.environ, **flags}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in (0, 1)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    expected = jax.tree.leaves([alone("mlp")] * 2)
    for process in (0, 1):
        with np.load(tmp_path / f"{process}.npz", allow_pickle=False) as found:
            jax.tree.map(close, [found[name] for name in found.files], expected)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    for backend in (parallel.shard_map(), parallel.pmap()):
        step = backend.compile(lambda carry, rows: (carry, local_rows(rows)))
        with pytest.raises(ValueError, match="a batch of 12 cannot be spread evenly over 8 devices"):
            step(jnp.zeros(()), jnp.arange(12))


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(KnobError, match="num_devices: must be at most 8"):
        parallel.jit(num_devices=9)
