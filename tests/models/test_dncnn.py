"""DnCNN against convolutions by SciPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from robustgen.core import Net
from robustgen.models import init
from robustgen.models.dncnn import dncnn
from robustgen.models.norm import EPSILON


def convolved(x, kernel):
    """x [H, W, C], kernel [3, 3, C, D] -> [H, W, D], zero padding."""
    planes = [[signal.correlate2d(x[..., c], kernel[..., c, d], "same") for c in range(x.shape[-1])]
              for d in range(kernel.shape[-1])]  # fmt: skip
    return np.sum(planes, 1).transpose(1, 2, 0)


def test_it_starts_as_the_identity(key):
    x = jax.random.uniform(key, (2, 6, 5, 2))
    net = init(dncnn(depth=4, width=3), (6, 5, 2), key)
    np.testing.assert_array_equal(net(x), x)
    kernel = net.params["Conv_1"]["kernel"].reshape(-1, 3)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-5)
    assert len(net.state["batch_stats"]) == 2 and len(net.params) == 6


def test_it_subtracts_what_its_convolutions_see(key):
    net = init(dncnn(depth=3, width=4), (6, 5, 2), key)
    draw = np.random.default_rng(0)
    params, state = jax.tree.map(lambda leaf: jnp.asarray(draw.uniform(0.5, 1.5, leaf.shape), jnp.float32) / 4,
                                 (net.params, net.state))  # fmt: skip
    x = draw.uniform(0, 1, (6, 5, 2)).astype(np.float32)
    p, s = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, state["batch_stats"]["BatchNorm_0"]))
    h = np.maximum(convolved(x, p["Conv_0"]["kernel"]) + p["Conv_0"]["bias"], 0)
    h = (convolved(h, p["Conv_1"]["kernel"]) - s["mean"]) / np.sqrt(s["var"] + EPSILON)
    h = np.maximum(h * p["BatchNorm_0"]["scale"] + p["BatchNorm_0"]["bias"], 0)
    expected = x - convolved(h, p["Conv_2"]["kernel"])
    found = Net(params, state, net.apply_fn)(x[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
