"""Five TRADES steps in double precision on any back end; as a script, one of two processes that train together.

    python tests/sharded.py PORT PROCESS_ID OUT.npz
"""

import sys

import flax.linen as nn
import jax
import numpy as np

from robustgen import attacks, losses, optim, parallel, threats, train
from robustgen.attacks import starts
from robustgen.core import Net
from robustgen.data import Split
from robustgen.data.stream import stream
from robustgen.models import init, mlp
from robustgen.models.layers import Conv, Dense
from robustgen.models.norm import BatchNorm

DRAW = np.random.default_rng(0)
SPLIT = Split(DRAW.integers(0, 256, (40, 6, 6, 1)).astype(np.uint8), DRAW.integers(0, 3, 40).astype(np.int32))


class Cnn(nn.Module):
    """One convolution, batch norm over the global batch, one dense layer."""

    @nn.compact
    def __call__(self, x, train):
        x = jax.nn.relu(BatchNorm()(Conv(4, 3, padding=1)(x), train))
        return Dense(3)(x.reshape(x.shape[0], -1))


MODULES = {"mlp": mlp(hidden=(8,), num_classes=3, dropout=0.0), "cnn": Cnn()}


def five_steps(backend: parallel.Backend, module: nn.Module) -> tuple:
    """State and metrics after 5 steps of TRADES with a random start and momentum, as NumPy arrays."""
    attack = attacks.pgd(
        threats.linf(0.1), objective=attacks.kl, step_size=0.03, num_steps=2, start=starts.gaussian(scale=0.001)
    )
    tx = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
    learner = train.Learner(module.apply, lambda step: losses.trades(attack, beta=6.0), tx, 0.9)

    def step(state, split):
        batches = stream(split, 1 / 255, batch_size=16, augment=lambda x, keys: x.astype(float), spread=backend.spread)
        return train.chunk(learner, batches, state, length=5)

    net = init(module, (6, 6, 1), jax.random.key(0))
    params, state = jax.tree.map(lambda leaf: leaf.astype(float), (net.params, net.state))
    begin = train.init(learner, Net(params, state, module.apply), jax.random.key(1))
    return jax.tree.map(np.asarray, backend.compile(step)(backend.place(begin), backend.place(SPLIT)))


if __name__ == "__main__":
    port, process, out = sys.argv[1:]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(process))
    with jax.enable_x64(True):
        found = [five_steps(backend, MODULES["mlp"]) for backend in (parallel.jit(), parallel.shard_map())]
    np.savez(out, *jax.tree.leaves(found))
