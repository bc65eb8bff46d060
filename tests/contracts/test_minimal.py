"""What every minimal-norm attack promises, whatever its norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks
from robustgen.attacks.minimal import distances, norms
from robustgen.spread import example_keys

NORM = {"cw_l2": norms.L2, "ddn": norms.L2, "deepfool": norms.L2, "fmn": norms.L2, "sigma_zero": norms.L0}
"""What each attack minimises, as `Case.build` makes it."""
STRONG = {
    "num_steps": 200, "step_size": 1.0, "final_step_size": 0.01, "gamma": 0.05, "final_gamma": 0.001,
    "overshoot": 0.005, "init_eps": 1.0, "levels": None, "sigma": 0.001, "threshold": 0.3, "threshold_step": 0.01,
    "confidence": 0.0, "learning_rate": 0.1, "num_searches": 6, "num_checks": 1, "init_c": 0.1,
}  # fmt: skip
"""Knobs that let an attack find something near, where it has them."""
TRACES = []


@functools.cache
def compiled(minimal_case):
    """(net, spoilt [B], x, y, key) -> x_adv. `spoilt` is added to the logits."""
    attack = minimal_case.build(**{name: value for name, value in STRONG.items() if name in minimal_case.knobs()})

    @jax.jit
    def run(model, spoilt, x, y, key):
        TRACES.append((minimal_case.name, x.shape))
        return attack(lambda z: model(z) + spoilt[:, None], x, y, key)

    return run


@pytest.fixture
def attack(minimal_case, net):
    """attack(x, y, key, spoilt, num_classes) -> x_adv of a small net."""

    def run(x, y, key, spoilt=0.0, num_classes=3):
        model = net(int(np.prod(x.shape[1:])), num_classes)
        return compiled(minimal_case)(model, jnp.broadcast_to(spoilt, len(x)), x, y, key)

    return run


def predicted(model, x):
    return np.asarray(jnp.argmax(model(x), -1), np.int32)


def on_the_way(norm, gradient, x):
    """Points further and further along one step: all features together, or for L0 one after another to its limit."""
    if norm is not norms.L0:
        longest = jnp.max(jnp.abs(gradient), (1, 2, 3), keepdims=True)
        return [jnp.clip(x + t * gradient / longest, 0, 1) for t in np.geomspace(0.005, 1, 150)]
    rank = jnp.argsort(jnp.argsort(-jnp.abs(gradient).reshape(len(x), -1), 1), 1).reshape(x.shape)
    return [jnp.where(rank < count, (gradient > 0).astype(x.dtype), x) for count in range(1, x[0].size + 1)]


def nearest_on_the_way(norm, model, x, y):
    """[B]: the least size that one step along the gradient needs to break x."""
    gradient = jax.grad(lambda z: jnp.sum(attacks.margin(model(z), y)))(x)
    points = on_the_way(norm, gradient, x)
    return np.min([np.where(predicted(model, z) != y, norm.size(z - x), np.inf) for z in points], 0)


def test_finds_something_near_inside_the_box(attack, minimal_case, inputs, net, key):
    x, model = 0.3 + 0.4 * inputs((8, 2, 2, 1)), net()  # away from the limits, on which these methods know no way
    norm = NORM.get(minimal_case.name) or pytest.fail(f"say in NORM of {__file__} what {minimal_case.name} minimises")
    y = predicted(model, x)
    x_adv = attack(x, y, key)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert np.all(np.isfinite(x_adv)) and np.all((x_adv >= 0) & (x_adv <= 1))
    moved = np.any(np.asarray(x_adv != x).reshape(8, -1), 1)
    np.testing.assert_array_equal(predicted(model, x_adv) != y, moved)
    reference, found = nearest_on_the_way(norm, model, x, y), distances(norm.size, model, x, y, x_adv)
    hit = np.isfinite(reference)
    ratio = np.asarray(found)[hit] / reference[hit]
    assert len(ratio) >= 6 and np.median(ratio) <= 1.01 and np.max(ratio) <= (2 if norm is norms.L0 else 1.1), ratio
    np.testing.assert_array_equal(x_adv, attack(x, y, key))


def test_what_is_misclassified_already_is_returned(attack, inputs, net, key):
    x, model = inputs((8, 2, 2, 1)), net()
    y = predicted(model, x)
    np.testing.assert_array_equal(attack(x, (y + 1) % 3, key), x)
    half = np.where(np.arange(8) < 4, y, (y + 1) % 3)
    x_adv = attack(x, half, example_keys(key, 8))
    np.testing.assert_array_equal(x_adv[4:], x[4:])
    assert np.any(x_adv[:4] != x[:4])


def test_one_trace_and_the_same_without_jit(attack, minimal_case, inputs, net, key):
    x, model = inputs((8, 2, 2, 1)), net()
    y = predicted(model, x)
    together = attack(x, y, key)
    attack(x[::-1], (y + 1) % 3, jax.random.key(5))
    assert TRACES.count((minimal_case.name, x.shape)) <= 2  # one key for all, and keys for each
    eager = compiled(minimal_case).__wrapped__(model, jnp.zeros(8), x, y, key)
    np.testing.assert_allclose(eager, together, rtol=0, atol=1e-4)


def test_an_example_is_attacked_alike_in_any_batch(attack, inputs, net, key):
    x, model, keys = inputs((8, 2, 2, 1)), net(), example_keys(key, 8)
    y = predicted(model, x)
    together = attack(x, y, keys)
    np.testing.assert_array_equal(attack(x, y, key), together)
    turned = attack(x[::-1].at[:4].set(0.5), jnp.asarray(y)[::-1].at[:4].set(0), keys[::-1])
    np.testing.assert_allclose(turned[4:], together[:4][::-1], rtol=0, atol=1e-5)


def test_a_net_that_gives_nan_is_not_broken(attack, inputs, net, key):
    x, model = inputs((8, 2, 2, 1)), net()
    y, third = predicted(model, x), np.arange(8) == 2
    x_adv = attack(x, y, key, spoilt=jnp.where(third, jnp.nan, 0.0))
    np.testing.assert_array_equal(x_adv[2], x[2])
    np.testing.assert_array_equal(x_adv[~third], attack(x, y, key)[~third])


def test_one_flat_example_and_two_classes(attack, inputs, net, key):
    x, model = inputs((1, 5)), net(5, 2)
    y = predicted(model, x)
    x_adv = attack(x, y, key, num_classes=2)
    assert x_adv.shape == x.shape and np.all((x_adv >= 0) & (x_adv <= 1))
    assert np.any(x_adv != x) == (predicted(model, x_adv) != y)[0]
