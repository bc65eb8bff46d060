"""CROWN and alpha-CROWN against auto_LiRPA's bounds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.certify.alpha import alpha_margins, ascent
from robustgen.certify.crown import crown_margins, every, intervals, unstable
from tests.certify.test_ibp_reference import CASES, reference_net

BATCH = 10


def found(shared, case, bits, margins, number):
    """Bounds [number, 9] by `margins(net, x, y, threat)`, in batches; and the arrays of the case."""
    folder = shared / "reference" / "certify"
    arrays, nodes = np.load(folder / f"{case}.npz"), json.loads((folder / f"{case}.json").read_text())["nodes"]
    stored = np.load(folder / f"{case.rsplit('_', 1)[0]}_weights.npz")
    with jax.enable_x64(bits == 64):
        dtype = jnp.float64 if bits == 64 else jnp.float32
        net = reference_net(nodes, {name: jnp.asarray(value, dtype) for name, value in stored.items()})
        bounds = jax.jit(lambda low, high, y: margins(net, low, y, threats.box(low, high)))
        ours = []
        for i in range(0, number, BATCH):
            low, high = (jnp.asarray(arrays[key][i : i + BATCH], dtype) for key in ("x_lo", "x_hi"))
            y = arrays["labels"][i : i + BATCH].astype(np.int32)
            rows = np.asarray(bounds(low, high, jnp.asarray(y)))
            ours += [np.delete(row, label) for row, label in zip(rows, y, strict=True)]
    return np.stack(ours), arrays


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("key", "refine"), [("crown_ibp64", intervals), ("crown64", every())])
def test_parity_with_auto_lirpa(case, bits, key, refine, shared):
    """Textbook CROWN-IBP and CROWN in float64 of auto_LiRPA 0.7.1, tolerances of the shared folder's README."""
    ours, arrays = found(shared, case, bits, lambda *args: crown_margins(*args, refine), BATCH)
    expected = arrays[key][:BATCH]
    scale = 1e-7 * (1 + np.abs(expected)) if bits == 64 else 1e-4 + 1e-5 * np.abs(expected)
    assert np.all(np.abs(ours - expected) <= scale), np.max(np.abs(ours - expected) / scale)


@pytest.mark.parametrize("case", ["mnistfc_256x2_s1", "kw_mnist_s1"])
def test_alpha_is_above_auto_lirpas(case, shared):
    """20 steps each, bounds between fixed: the mean is not below theirs, and nothing that they verify is lost."""
    steps = ascent(num_steps=20, learning_rate=0.25, decay=0.98)
    ours, arrays = found(shared, case, 32, lambda *args: alpha_margins(*args, steps=steps, refine=unstable()), BATCH)
    theirs = arrays["alpha20_fixed_32"][:BATCH]
    assert ours.mean() >= theirs.mean() - 1e-4
    assert not np.any((theirs.min(1) > 0) & (ours.min(1) <= 0))
