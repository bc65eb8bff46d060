"""Losses that are no mean over examples are, on eight devices, still those of the global batch: to 1e-12 in float64."""

import jax
import numpy as np
import pytest

from robustgen import attacks, losses, optim, parallel, threats, train
from robustgen.core import Net
from robustgen.data import Split
from robustgen.data.stream import stream
from robustgen.models import init, mlp

DRAW = np.random.default_rng(0)
SPLIT = Split(DRAW.integers(0, 256, (40, 3, 3, 1)).astype(np.uint8), DRAW.integers(0, 3, 40).astype(np.int32))


def three_steps(backend):
    """Exp-IBP, which is a product of means, with penalties made of ratios of means."""
    threat = threats.linf(0.02)
    attack = attacks.pgd(threat, objective=attacks.cross_entropy, step_size=1.0, num_steps=1)
    loss = losses.balanced(losses.exp_ibp(threat, attack, alpha=0.3), threat, weight=0.5, tolerance=0.95)
    module = mlp(hidden=(8,), num_classes=3)
    tx = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    learner = train.Learner(module.apply, lambda step: loss, tx, 0.0)

    def steps(state, split):
        batches = stream(split, 1 / 255, batch_size=16, augment=lambda x, keys: x.astype(float), spread=backend.spread)
        return train.chunk(learner, batches, state, length=3)

    net = init(module, (3, 3, 1), jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(float), net.params)
    begin = train.init(learner, Net(params, {}, module.apply), jax.random.key(1))
    return jax.tree.map(np.asarray, backend.compile(steps)(backend.place(begin), backend.place(SPLIT)))


@pytest.mark.parametrize("backend", [parallel.shard_map, parallel.pmap], ids=lambda backend: backend.__name__)
def test_eight_devices_are_one(backend, x64):
    found, expected = three_steps(backend()), three_steps(parallel.jit(num_devices=1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)
    assert np.all(expected[1]["relu_penalty"] > 0) and np.all(expected[1]["tightness_penalty"] > 0)
