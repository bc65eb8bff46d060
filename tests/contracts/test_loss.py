"""What everything that trains promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import losses, threats
from robustgen.core import Batch, Forward, eval_forward

Y = jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1], jnp.int32)


@pytest.fixture
def batch(inputs):
    return Batch(inputs((8, 2, 2, 1)), Y)


def test_value_gradient_and_state(loss_case, net, batch, key):
    loss, model = loss_case.build(), net()
    chex.clear_trace_counter()  # it counts by address, which a loss of an earlier test may have had
    step = jax.jit(jax.value_and_grad(chex.assert_max_traces(loss, n=1), has_aux=True))
    (value, aux), grads = step(model, batch, key)
    assert value.shape == () and value.dtype == jnp.float32 and jnp.isfinite(value)
    for name, gradient in grads.params.items():
        assert jnp.all(jnp.isfinite(gradient)) and jnp.any(gradient != 0), name
    chex.assert_trees_all_equal_shapes_and_dtypes(aux.state, model.state)
    chex.assert_tree_all_finite(aux)
    assert aux.metrics and all(metric.shape == () for metric in aux.metrics.values())
    assert all(0 <= metric <= 1 for name, metric in aux.metrics.items() if name.endswith("accuracy"))
    chex.assert_trees_all_equal(step(model, batch, key), ((value, aux), grads))
    other = Batch(batch.x[::-1], (batch.y + 1) % 3)
    assert step(model, other, jax.random.key(1))[0][0] != value  # without another trace
    eager, eager_aux = loss(model, batch, key)
    chex.assert_trees_all_close((eager, eager_aux), (value, aux), rtol=1e-5, atol=1e-6)


def test_with_radius_zero_it_is_the_standard_loss(loss_case, net, batch, key):
    """With every forward pass in evaluation mode: what an adversary of radius zero cannot change is cross-entropy,
    in whatever order the examples come."""
    forwards = {name: eval_forward for name, hint in loss_case.knobs().items() if hint is Forward}
    loss, model = jax.jit(loss_case.build(threats.linf(0.0), **forwards)), net()
    clean, _ = losses.standard(forward=eval_forward)(model, batch, key)
    np.testing.assert_allclose(loss(model, batch, key)[0], clean, rtol=1e-6)
    np.testing.assert_allclose(loss(model, Batch(batch.x[::-1], batch.y[::-1]), key)[0], clean, rtol=1e-6)
