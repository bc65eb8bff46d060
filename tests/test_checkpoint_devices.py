"""Checkpoints are saved on some devices or processes and restored on others."""

import os
import pathlib
import random
import subprocess
import sys
import textwrap
from subprocess import PIPE

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from robustgen import checkpoint


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes())
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)


def test_saved_on_eight_devices_restores_on_one_and_back(tmp_path):
    eight = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread, whole = NamedSharding(eight, PartitionSpec("data")), NamedSharding(eight, PartitionSpec())
    host = {"spread": np.arange(48.0, dtype=np.float32).reshape(16, 3), "whole": np.float32(7)}
    on_eight = {"spread": jax.device_put(host["spread"], spread), "whole": jax.device_put(host["whole"], whole)}
    on_one = jax.device_put(host, jax.devices()[3])
    checkpoint.save(tmp_path, 1, on_eight)
    first = checkpoint.restore(tmp_path, on_one).state
    assert_same(first, on_one)
    assert all(leaf.devices() == {jax.devices()[3]} for leaf in jax.tree.leaves(first))
    checkpoint.save(tmp_path, 2, first)
    structs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), on_eight)
    for like in (on_eight, structs):
        second = checkpoint.restore(tmp_path, like).state
        assert_same(second, on_eight)
        assert jax.tree.map(lambda leaf: leaf.sharding, second) == {"spread": spread, "whole": whole}


TWO_PROCESSES = """
    import sys, jax, numpy as np
    rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from robustgen import checkpoint, preemption
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    host = np.arange(16, dtype=np.float32)
    spread = NamedSharding(mesh, PartitionSpec("data"))
    state = {"spread": jax.make_array_from_callback((16,), spread, host.__getitem__), "own": np.float32(2)}
    for step in (1, 2):
        checkpoint.save(folder, step, state, keep=1)
    restored = checkpoint.restore(folder, state)
    for shard in restored.state["spread"].addressable_shards:
        assert np.array_equal(shard.data, host[shard.index])
    assert restored.step == 2 and checkpoint.steps(folder) == [2]
    assert not preemption.requested()
    if rank:
        preemption._seen = 15
    assert preemption.requested()
    try:
        preemption.check()
    except preemption.Preempted as ended:
        assert ended.code == preemption.REQUEUE
        print("told to stop")
"""


def test_two_processes_save_together_and_one_restores(tmp_path):
    port = str(random.SystemRandom().randrange(20000, 60000))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["PYTHONPATH"] = str(pathlib.Path(__file__).parents[1])
    command = [sys.executable, "-c", textwrap.dedent(TWO_PROCESSES)]
    workers = [
        subprocess.Popen([*command, rank, port, tmp_path / "c"], env=environment, stdout=PIPE, stderr=PIPE, text=True)
        for rank in "01"
    ]
    told = [worker.communicate(timeout=60) for worker in workers]
    assert all(out.endswith("told to stop\n") for out, err in told), told
    assert np.array_equal(checkpoint.load(tmp_path / "c").state["['spread']"], np.arange(16, dtype=np.float32))
