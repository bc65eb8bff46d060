"""CNN7: its size, its start, and that every layer of it is seen by bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import models, threats
from robustgen.certify import margins_lower
from robustgen.losses.certified import relu_inputs

CONVOLUTIONS = 64 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 2 * (128 * 128 * 9 + 128) + 2 * (64 + 64 + 3 * 128)


@pytest.mark.parametrize(("shape", "count"), [((28, 28, 1), 13_259_338), ((32, 32, 3), 17_192_650)])
def test_size(shape, count):
    """By hand from cnn_7layer_bn2 of Shi et al. 2021; batch norm adds a scale and a bias."""
    net = jax.eval_shape(lambda: models.init(models.cnn7(num_classes=10), shape, jax.random.key(0)))
    dense = (shape[0] // 2) ** 2 * 128 * 512 + 512 + 2 * 512 + 512 * 10 + 10
    assert sum(leaf.size for leaf in jax.tree.leaves(net.params)) == count
    assert count == CONVOLUTIONS + 64 * shape[2] * 9 + 64 + dense


def test_start_and_bounds(key):
    """Kernels but the last are N(0, 2 pi / fan_in^2); interval bounds pass through all six relus."""
    net = models.init(models.cnn7(num_classes=3, width=8, features=16), (8, 8, 1), key)
    for name, fan_in in (("Conv_1", 72), ("Conv_4", 144), ("Dense_0", 256)):
        kernel = net.params[name]["kernel"]
        np.testing.assert_allclose(jnp.std(kernel) * fan_in, np.sqrt(2 * np.pi), rtol=0.15)
    assert jnp.max(jnp.abs(net.params["Dense_1"]["kernel"])) <= 16**-0.5
    x, y, threat = jnp.full((2, 8, 8, 1), 0.5), jnp.asarray([0, 2]), threats.linf(0.01)

    @jax.jit
    def bounds(net):
        return margins_lower(net, x, y, threat), relu_inputs(net, x, threat), net(threat.bounds(x)[1])

    margins, layers, logits = bounds(net)
    assert len(layers) == 6
    assert jnp.all(margins <= jnp.take_along_axis(logits, y[:, None], 1) - logits)
