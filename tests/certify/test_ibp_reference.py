"""Interval bounds against those of auto_LiRPA in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen import threats
from robustgen.certify import margins_lower


def reference_net(nodes, weights):
    """The layer list of a parity case, NCHW, as a function of x [B, ...]."""

    def apply(x):
        for node in nodes:
            op = node["op"]
            if op == "flatten":
                x = x.reshape(x.shape[0], -1)
            elif op == "relu":
                x = jax.nn.relu(x)
            elif op == "dense":
                x = x @ weights[node["w"]].T + weights[node["b"]]
            elif op == "conv":
                top, left, bottom, right = node["pads"]
                x = lax.conv_general_dilated(x, weights[node["w"]], node["stride"], [(top, bottom), (left, right)])
                x = x + weights[node["b"]][:, None, None]
            else:
                window, stride = ((1, 1, *node[key]) for key in ("kernel", "stride"))
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, stride, "VALID")
        return x

    return apply


CASES = ["mnistfc_256x2_s1", "mnistfc_256x2_s0.5", "kw_mnist_s1", "kw_mnist_s0.5", "verivital_maxpool_s1"]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("case", CASES)
def test_parity_with_auto_lirpa(case, bits, shared):
    """Textbook IBP in float64 of auto_LiRPA 0.7.1, tolerances of the shared folder's README."""
    folder = shared / "reference" / "certify"
    arrays, nodes = np.load(folder / f"{case}.npz"), json.loads((folder / f"{case}.json").read_text())["nodes"]
    stored = np.load(folder / f"{case.rsplit('_', 1)[0]}_weights.npz")
    expected, y = arrays["ibp64"], arrays["labels"].astype(np.int32)
    with jax.enable_x64(bits == 64):
        dtype = jnp.float64 if bits == 64 else jnp.float32
        net = reference_net(nodes, {name: jnp.asarray(value, dtype) for name, value in stored.items()})
        low, high = (jnp.asarray(arrays[key], dtype) for key in ("x_lo", "x_hi"))
        margins = np.asarray(jax.jit(lambda x: margins_lower(net, x, jnp.asarray(y), threats.box(low, high)))(low))
    ours = np.stack([np.delete(row, label) for row, label in zip(margins, y, strict=True)])
    scale = 1e-7 * (1 + np.abs(expected)) if bits == 64 else 1e-4 + 1e-5 * np.abs(expected)
    assert np.all(np.abs(ours - expected) <= scale), np.max(np.abs(ours - expected) / scale)
