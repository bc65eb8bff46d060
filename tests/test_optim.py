"""Optimizers against their definitions, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import optim
from robustgen.schedules import ramp


def descend(tx, params, gradients):
    """Parameters after each step."""
    state, path = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        path.append(params)
    return path


@pytest.fixture
def problem(x64):
    random = np.random.default_rng(0)
    params = {"w": jnp.asarray(random.standard_normal((2, 3))), "b": jnp.asarray(random.standard_normal(3))}
    gradients = [jax.tree.map(lambda p: jnp.asarray(random.standard_normal(p.shape)), params) for _ in range(6)]
    return params, gradients


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_torch(problem, momentum, nesterov):
    """g += wd p; buf = m buf + g; p -= lr (g + m buf if nesterov else buf): torch.optim.SGD, on every leaf."""
    params, gradients = problem
    tx = optim.sgd(learning_rate=0.1, momentum=momentum, weight_decay=5e-4, nesterov=nesterov)
    expected, buffer = dict(params), {name: 0.0 for name in params}
    for found, gradient in zip(descend(tx, params, gradients), gradients, strict=True):
        for name, p in expected.items():
            g = np.asarray(gradient[name]) + 5e-4 * p
            buffer[name] = momentum * buffer[name] + g
            expected[name] = p - 0.1 * (g + momentum * buffer[name] if nesterov else buffer[name])
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_sgd_against_torch_itself(problem):
    torch = pytest.importorskip("torch", reason="the original to compare with is an optional extra")
    params, gradients = problem
    theirs = torch.nn.Parameter(torch.tensor(np.asarray(params["w"])))
    tx = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    ours = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for found, gradient in zip(descend(ours, params, gradients), gradients, strict=True):
        theirs.grad = torch.tensor(np.asarray(gradient["w"]))
        tx.step()
        np.testing.assert_allclose(found["w"], theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_and_adamw(problem, weight_decay):
    """Bias-corrected moments; AdamW takes lr wd p from matrices besides, not from biases."""
    params, gradients = problem
    if weight_decay:
        tx = optim.adamw(learning_rate=0.01, weight_decay=weight_decay)
    else:
        tx = optim.adam(learning_rate=0.01)
    for name, p in params.items():
        decay = weight_decay if p.ndim > 1 else 0.0
        m = v = 0.0
        for t, (found, gradient) in enumerate(zip(descend(tx, params, gradients), gradients, strict=True), 1):
            g = np.asarray(gradient[name])
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p = p - 0.01 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * p)
            np.testing.assert_allclose(found[name], p, rtol=1e-9)


def test_clip_norm_is_over_all_leaves(problem):
    """Adam forgets the scale of gradients, so the first moment is looked at."""
    params, gradients = problem
    tx = optim.adam(learning_rate=0.01, clip_norm=0.5)
    _, state = tx.update(gradients[0], tx.init(params), params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients[0].values()))
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2, 3)]
    np.testing.assert_allclose(moments[0], 0.1 * gradients[0]["w"] * 0.5 / norm, rtol=1e-9)


def test_learning_rate_may_follow_a_schedule_or_be_traced(problem):
    params, gradients = problem
    scheduled = optim.sgd(learning_rate=ramp(0.1, 0.0, begin=0.0, length=1.0).over(4), momentum=0.0, weight_decay=0.0)
    path = descend(scheduled, params, gradients)
    for step, (before, after) in enumerate(zip([params, *path], path, strict=False)):
        moved = -0.1 * max(1 - step / 4, 0) * gradients[step]["w"]
        np.testing.assert_allclose(after["w"] - before["w"], moved, atol=1e-8)
    rates = jnp.asarray([0.1, 0.2])

    def last(learning_rate):
        tx = optim.sgd(learning_rate=learning_rate, momentum=0.9, weight_decay=0.0)
        return descend(tx, params, gradients)[-1]["w"]

    np.testing.assert_allclose(jax.vmap(last)(rates)[1], last(0.2), rtol=1e-12)
