"""The networks: sizes as published, precision, initialisation, dropout, refusals, compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import models
from robustgen.knobs import KnobError

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)

NETWORKS = {
    "mlp": (lambda **k: models.mlp(hidden=(9, 7), dropout=0.2, **k), (8, 8, 3)),
    "small_cnn": (models.small_cnn, (16, 16, 3)),
    "wong_cnn": (models.wong_cnn, (12, 12, 3)),
    "resnet8": (models.resnet8, (8, 8, 3)),
    "wide_resnet": (lambda **k: models.wide_resnet(depth=10, width=1, dropout=0.3, **k), (8, 8, 3)),
}


def size(module, shape):
    net = jax.eval_shape(lambda: models.init(module, shape, jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves((net.params, net.state))} == {jnp.dtype("float32")}
    return sum(leaf.size for leaf in jax.tree.leaves(net.params))


@pytest.mark.parametrize(
    ("module", "shape", "count"),
    [
        (models.small_cnn(num_classes=10), MNIST, 312_202),  # counted by hand from TRADES' models/small_cnn.py
        (models.wong_cnn(num_classes=10), MNIST, 166_406),  # Wong & Kolter 2018, examples/problems.py, by hand
        (models.resnet18(num_classes=10), CIFAR, 11_173_962),  # kuangliu/pytorch-cifar
        (models.preact_resnet18(num_classes=10), CIFAR, 11_172_170),  # Rice et al. 2020, with their last batch norm
        (models.wide_resnet(depth=28, width=10, num_classes=10), CIFAR, 36_479_194),  # "36.5M" in arXiv 1605.07146
        (models.wide_resnet(depth=34, width=10, num_classes=10), CIFAR, 46_160_474),  # TRADES, without its sub_block1
        (models.mlp(hidden=(256, 128), num_classes=10), (8, 8, 1), 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_parameter_counts(module, shape, count):
    assert size(module, shape) == count


def everything(net, x, key):
    logits, after = net.train(x, key)
    raw = net.apply_fn({"params": net.params, **net.state}, x, train=False)
    return raw, logits, jax.grad(lambda x: jnp.sum(net(x) ** 2))(x), after


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_state_and_gradients_are_finite_in_float32_whatever_is_computed_in(name, key):
    factory, shape = NETWORKS[name]
    x = jax.random.uniform(key, (3, *shape))
    for dtype in ("bfloat16", "float32"):
        net = models.init(factory(num_classes=4, mean=MEAN, std=STD, dtype=dtype), shape, key)
        raw, _, _, after = shapes = jax.eval_shape(everything, net, x, key)
        assert raw.shape == (3, 4) and {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
        assert jax.tree.structure(after) == jax.tree.structure(net)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(everything)(net, x, key)))


@pytest.mark.parametrize("name", ["wong_cnn", "resnet8"])
def test_bfloat16_computes_in_bfloat16_and_stays_near(name, key):
    factory, shape = NETWORKS[name]
    full, half = (models.init(factory(num_classes=4, dtype=d), shape, key) for d in ("float32", "bfloat16"))
    x = jax.random.uniform(key, (5, *shape))
    assert "bf16" in str(jax.make_jaxpr(half)(x)) and "bf16" not in str(jax.make_jaxpr(full)(x))
    exact, rounded = (jax.jit(lambda net: net(x))(net) for net in (full, half))
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.ptp(exact) + 0.02


def test_the_mean_is_subtracted_before_anything_is_rounded(key):
    """Near 0.5 a perturbation of 1e-3 is below bfloat16's resolution; after subtraction it is not."""
    net = models.init(models.mlp(hidden=(8,), num_classes=3, mean=(0.5,), dtype="bfloat16"), (4, 4, 1), key)
    x = jnp.full((1, 4, 4, 1), 0.5)
    assert x.astype(jnp.bfloat16)[0, 0, 0, 0] == (x + 1e-3).astype(jnp.bfloat16)[0, 0, 0, 0]
    assert np.abs(net(x + 1e-3) - net(x)).max() > 1e-5


def test_normalisation_is_inside(key):
    factory, shape = NETWORKS["resnet8"]
    plain, normal = factory(num_classes=3), factory(num_classes=3, mean=MEAN, std=STD)
    x = jax.random.uniform(key, (2, *shape))
    net = models.init(plain, shape, key)
    outside = net((x - jnp.asarray(MEAN).reshape(1, 1, 1, 3)) / jnp.asarray(STD).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(type(net)(net.params, net.state, normal.apply)(x), outside, rtol=1e-4, atol=1e-5)


def test_small_cnn_starts_as_in_trades(key):
    params = models.init(models.small_cnn(num_classes=10), MNIST, key).params
    assert not np.any(params["Dense_2"]["kernel"]) and not np.any(params["Dense_2"]["bias"])
    assert not any(np.any(params[f"Conv_{i}"]["bias"]) for i in range(4))
    np.testing.assert_allclose(np.std(params["Conv_3"]["kernel"]), np.sqrt(2 / (9 * 64)), rtol=0.02)
    for name in ("kernel", "bias"):
        bound = 1 / np.sqrt(1024)
        assert 0.95 * bound < np.abs(params["Dense_0"][name]).max() <= bound


def test_dropout_follows_the_key_and_rests_in_evaluation(key):
    factory, shape = NETWORKS["mlp"]
    net, x = models.init(factory(num_classes=4), shape, key), jax.random.uniform(key, (3, *shape))
    first, again, other = (net.train(x, jax.random.key(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other) and np.any(first != net(x))


@pytest.mark.parametrize(
    ("factory", "knob"),
    [
        (lambda: models.wide_resnet(depth=29, width=10, num_classes=10), "depth"),
        (lambda: models.wide_resnet(depth=28, width=0, num_classes=10), "width"),
        (lambda: models.mlp(hidden=(8, 0), num_classes=10), "hidden"),
        (lambda: models.mlp(hidden=(8,), num_classes=10, dropout=1.0), "dropout"),
        (lambda: models.resnet18(num_classes=10, dtype="float16"), "dtype"),
        (lambda: models.resnet18(num_classes=10, std=(0.2, 0.0, 0.2)), "std"),
        (lambda: models.small_cnn(num_classes=10, mean=(float("nan"),)), "mean"),
    ],
)
def test_wrong_knobs_are_refused_by_name(factory, knob):
    with pytest.raises(KnobError) as refusal:
        factory()
    assert refusal.value.knob == knob


def test_steps_do_not_compile_again(key):
    factory, shape = NETWORKS["resnet8"]
    net, traces = models.init(factory(num_classes=4), shape, key), []

    @jax.jit
    def step(net, x, key):
        traces.append(1)
        return net.train(x, key)[1]

    for seed in range(3):
        net = step(net, jax.random.uniform(key, (3, *shape)), jax.random.key(seed))
    assert len(traces) == 1
