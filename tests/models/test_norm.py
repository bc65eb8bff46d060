"""Batch norm against its formula in NumPy float64, against torch, and over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from robustgen import models
from robustgen.core import batch_forward, eval_forward, train_forward
from robustgen.models.norm import BatchNorm

POLICIES = (eval_forward, batch_forward, train_forward)


@pytest.fixture
def net(key):
    """A batch norm over 3 channels, with numbers that are not those it starts from."""
    net = models.init(BatchNorm(), (4, 5, 3), key)
    params = {"scale": jnp.array([2.0, 0.5, -1.0]), "bias": jnp.array([0.1, 0.0, 3.0])}
    state = {"batch_stats": {"mean": jnp.array([0.3, -0.2, 1.0]), "var": jnp.array([0.5, 2.0, 1.5])}}
    return type(net)(params, state, net.apply_fn)


def images(batch=8):
    return np.random.default_rng(0).normal([1.0, -2.0, 0.0], [1.0, 3.0, 0.1], (batch, 4, 5, 3)).astype(np.float32)


def oracle(net, x, mean, var):
    scale, bias = (np.asarray(net.params[name], np.float64) for name in ("scale", "bias"))
    return (np.asarray(x, np.float64) - mean) / np.sqrt(var + 1e-5) * scale + bias


def test_evaluation_uses_running_statistics_and_moves_nothing(net, key):
    y, after = eval_forward(net, images(), key)
    np.testing.assert_allclose(y, oracle(net, images(), *net.state["batch_stats"].values()), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.state, net.state)


@pytest.mark.parametrize("policy", [batch_forward, train_forward])
def test_training_uses_statistics_of_the_batch_and_only_one_policy_moves_the_running_ones(policy, net, key):
    x = images().astype(np.float64)
    y, after = jax.jit(policy)(net, images(), key)
    np.testing.assert_allclose(y, oracle(net, x, x.mean((0, 1, 2)), x.var((0, 1, 2))), rtol=1e-4, atol=1e-4)
    old, new = net.state["batch_stats"], after.state["batch_stats"]
    moved = 0.1 if policy is train_forward else 0.0
    n = x[..., 0].size
    np.testing.assert_allclose(new["mean"], (1 - moved) * old["mean"] + moved * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["var"], (1 - moved) * old["var"] + moved * x.var((0, 1, 2)) * n / (n - 1), rtol=1e-5)


def test_torch_agrees(net, key):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layer = torch.nn.BatchNorm2d(3).double()
    with torch.no_grad():
        for name, value in (("weight", "scale"), ("bias", "bias")):
            getattr(layer, name).copy_(torch.tensor(np.asarray(net.params[value], np.float64)))
        layer.running_mean.copy_(torch.tensor(np.asarray(net.state["batch_stats"]["mean"], np.float64)))
        layer.running_var.copy_(torch.tensor(np.asarray(net.state["batch_stats"]["var"], np.float64)))
    x = torch.tensor(images().transpose(0, 3, 1, 2).astype(np.float64), requires_grad=True)
    theirs = layer(x)
    torch.sin(theirs).sum().backward()
    y, after = net.train(images(), key)
    gradient = jax.grad(lambda x: jnp.sin(net.train(x, key)[0]).sum())(images())
    np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, x.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.state["batch_stats"]["var"], layer.running_var.numpy(), rtol=1e-5)


def test_eight_devices_have_the_statistics_and_gradients_of_one(net, key, x64):
    net, x = jax.tree.map(lambda a: a.astype(jnp.float64), (net, jnp.asarray(images(16))))

    def loss(params, x):
        y, after = type(net)(params, net.state, net.apply_fn).train(x, key)
        return jnp.mean(jnp.sin(y) * x), after.state

    def sharded(params, x):
        varying = jax.tree.map(lambda p: jax.lax.pcast(p, "data", to="varying"), params)
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(varying, x)
        return jax.lax.pmean((value, gradient), "data"), state

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.jit(jax.shard_map(sharded, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))
    (value, gradient), state = spread(net.params, x)
    (expected, expected_state), expected_gradient = jax.value_and_grad(loss, has_aux=True)(net.params, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)  # noqa: E731
    jax.tree.map(close, (value, gradient, state), (expected, expected_gradient, expected_state))


def test_statistics_of_a_bfloat16_input_are_float32(net, key):
    x = jnp.asarray(images(64), jnp.bfloat16)
    y, after = net.train(x, key)
    assert net.apply_fn({"params": net.params, **net.state}, x, train=False).dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(after.state)} == {jnp.dtype("float32")}
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    moved = 0.9 * np.asarray(net.state["batch_stats"]["mean"], np.float64) + 0.1 * exact
    np.testing.assert_allclose(after.state["batch_stats"]["mean"], moved, rtol=1e-5)


def test_a_far_mean_costs_no_precision(net, key):
    """Mean of squares less square of mean, in float32, would be useless here."""
    x = 300 + images(64) / 10
    exact = x.astype(np.float64)
    expected = oracle(net, exact, exact.mean((0, 1, 2)), exact.var((0, 1, 2)))
    np.testing.assert_allclose(net.train(x, key)[0], expected, atol=5e-3)
