"""The regularisers of certified training against float64 NumPy, written from the paper and the official code."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import losses, models, threats
from robustgen.core import Batch, Interval, Net
from robustgen.losses import certified
from robustgen.losses.certified import regularize

DRAW = np.random.default_rng(3)
PARAMS = {
    "u": DRAW.standard_normal((5, 16)), "b": DRAW.standard_normal(16), "w": DRAW.standard_normal((16, 12)) / 2,
    "v": DRAW.standard_normal((12, 3)),
}  # fmt: skip
X, Y = DRAW.uniform(0, 1, (8, 5)), np.asarray([0, 1, 2, 0, 1, 2, 0, 1])
EPS, TOLERANCE = 0.05, 0.5


def apply_fn(variables, x, train, mutable=(), rngs=None):
    p = variables["params"]
    logits = jax.nn.relu(jnp.maximum(x @ p["u"] + p["b"], 0) @ p["w"]) @ p["v"]
    return (logits, {}) if train else logits


def net(params=PARAMS) -> Net:
    return Net({name: jnp.asarray(p) for name, p in params.items()}, {}, apply_fn)


def batch() -> Batch:
    return Batch(jnp.asarray(X), jnp.asarray(Y, jnp.int32))


def layers_of(params, eps):
    low, high = np.clip(X - eps, 0, 1), np.clip(X + eps, 0, 1)
    found = []
    for kernel, bias in ((params["u"], params["b"]), (params["w"], 0.0)):
        centre, radius = (low + high) / 2 @ kernel + bias, (high - low) / 2 @ np.abs(kernel)
        found.append((centre - radius, centre + radius))
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    return found


def official(params, eps, tol):
    """compute_reg of the official code, line by line; the sums that it divides by each other are left as sums."""
    low, high = np.clip(X - eps, 0, 1), np.clip(X + eps, 0, 1)
    tightness_0 = np.mean((high - low) / 2)
    tightness, relu = 0.0, 0.0
    for lower, upper in layers_of(params, eps):
        centre, diff = (upper + lower) / 2, (upper - lower) / 2
        tightness += max(tol - tightness_0 / max(diff.mean(), 1e-12), 0) / tol
        act, inact = lower > 0, upper < 0
        delta = (centre - centre.mean()) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_ratio = (centre * act).mean() / -(centre * inact).mean()
            var_ratio = (delta * act).sum() / (delta * inact).sum()
            mean_ratio = np.minimum(mean_ratio, 1 / np.maximum(mean_ratio, 1e-12))
            var_ratio = np.minimum(var_ratio, 1 / np.maximum(var_ratio, 1e-12))
            found = (np.maximum(tol - mean_ratio, 0) + np.maximum(tol - var_ratio, 0)) / tol
        relu += found if np.isfinite(found) else 0.0
    return tightness / 2, relu / 2


def shifted(by):
    """Biases so large that the first layer has active units only, inactive ones only, or both."""
    return {**PARAMS, "b": PARAMS["b"] + by}


def test_penalties_against_the_official_code(key, x64):
    """Layers of both states, of active units alone, of inactive ones alone, of mostly active ones; sets of any size."""

    @jax.jit
    def both(model, eps):
        wrapped = losses.balanced(losses.standard(), threats.linf(eps), weight=0.3, tolerance=TOLERANCE)
        return wrapped(model, batch(), key), losses.standard()(model, batch(), key)

    for by, eps in itertools.product((0.0, 40.0, -40.0, 3.0), (EPS, 0.3, 1e-6)):
        (value, aux), (plain, plain_aux) = both(net(shifted(by)), eps)
        tightness, relu = official(shifted(by), eps, TOLERANCE)
        np.testing.assert_allclose(aux.metrics["tightness_penalty"], tightness, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(aux.metrics["relu_penalty"], relu, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(value, plain + 0.3 * (tightness + relu), rtol=1e-9)
        assert plain_aux.metrics.items() <= aux.metrics.items()


def test_the_cases_reach_both_penalties_and_the_undefined_layer():
    """What the official code leaves out, layers without inactive units, is among the cases above."""
    assert official(PARAMS, EPS, TOLERANCE)[0] > 0 and official(PARAMS, EPS, TOLERANCE)[1] > 0
    lower, _ = layers_of(shifted(40.0), EPS)[0]
    _, upper = layers_of(shifted(-40.0), EPS)[0]
    assert lower.min() > 0 > upper.max()


def test_gradient_against_differences(key, x64):
    wrapped = losses.balanced(losses.standard(), threats.linf(EPS), weight=1.0, tolerance=TOLERANCE)
    value = jax.jit(lambda params: wrapped(Net(params, {}, apply_fn), batch(), key)[0])
    jax.test_util.check_grads(value, (net().params,), order=1, modes=["rev"], eps=1e-6, rtol=1e-4)


def test_gradient_is_finite_where_nothing_is_wide_or_a_state_has_no_unit(key):
    wrapped = losses.balanced(losses.standard(), threats.linf(0.0), weight=1.0, tolerance=TOLERANCE)
    data = Batch(jnp.asarray(X, jnp.float32), batch().y)
    gradient = jax.jit(jax.grad(lambda p: wrapped(Net(p, {}, apply_fn), data, key)[0]))
    for by in (0.0, 40.0, -40.0):
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), shifted(by))
        chex.assert_tree_all_finite(gradient(params))


def test_relu_penalty_by_hand(x64):
    """Units active at 3, inactive at -1, either: mean 2/3 of centres, 5/6 of radii; ratios 1/3, 25/49."""
    layer = Interval(jnp.asarray([2.0, -1.5, -1.0]), jnp.asarray([4.0, -0.5, 1.0]))
    ratios = 1 / 3, (-1 - 2 / 3) ** 2 / (3 - 2 / 3) ** 2
    np.testing.assert_allclose(regularize.relu_penalty(layer, 0.8), sum(0.8 - r for r in ratios) / 0.8, rtol=1e-12)
    np.testing.assert_allclose(regularize.tightness_penalty(layer, jnp.asarray(0.1), 0.5), (0.5 - 0.12) / 0.5)


class Convolutional(nn.Module):
    """Relus in the three ways they are written, and maxima that are none."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(3, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = jnp.maximum(nn.Conv(4, (3, 3))(x), 0)
        x = jnp.maximum(nn.Dense(5)(x.reshape(len(x), -1)), -0.5)
        x = jnp.maximum(jnp.zeros(6), nn.Dense(6)(x))
        return nn.Dense(3)(x)


def test_relus_are_found_in_any_net_and_their_bounds_hold(key):
    module, x = Convolutional(), jax.random.uniform(key, (2, 6, 6, 1))
    variables = module.init(key, x, train=False)
    threat = threats.linf(EPS)

    @jax.jit
    def found(variables):
        return certified.relu_inputs(lambda z: module.apply(variables, z, train=False), x, threat)

    layers = found(variables)
    assert [layer.lower.shape for layer in layers] == [(2, 1, 6, 6, 3), (2, 1, 3, 3, 4), (2, 1, 6)]
    for i in range(20):
        z = threat.sample(x, jax.random.split(jax.random.key(i), 2))
        _, seen = module.apply(variables, z, train=False, capture_intermediates=True)
        seen = {name: value["__call__"][0] for name, value in seen["intermediates"].items() if name != "__call__"}
        for name, layer in zip(("Conv_0", "Conv_1", "Dense_1"), layers, strict=True):
            value = seen[name][:, None]
            assert jnp.all((layer.lower - 1e-5 <= value) & (value <= layer.upper + 1e-5))


def test_where_its_weight_is_zero_nothing_is_added_nor_computed(key):
    """Seen by a bound that would be infinite: no nan reaches value or gradient."""
    unbounded = threats.box(jnp.full(5, -jnp.inf), jnp.full(5, jnp.inf))
    wrapped = lambda weight: losses.balanced(  # noqa: E731
        losses.standard(), unbounded, weight=weight, tolerance=TOLERANCE
    )
    data = Batch(jnp.asarray(X, jnp.float32), batch().y)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)
    step = lambda weight: jax.value_and_grad(lambda p: wrapped(weight)(Net(p, {}, apply_fn), data, key)[0])(params)  # noqa: E731
    plain = jax.value_and_grad(lambda p: losses.standard()(Net(p, {}, apply_fn), data, key)[0])(params)
    chex.assert_trees_all_close(jax.jit(step)(jnp.asarray(0.0)), plain, rtol=1e-4)
    assert not jnp.isfinite(jax.jit(step)(jnp.asarray(1.0))[0])


def test_a_net_without_relu_is_refused(key):
    model = Net({}, {}, lambda variables, x, train, **_: (jnp.tanh(x), {}) if train else jnp.tanh(x))
    wrapped = losses.balanced(losses.standard(), threats.linf(EPS), weight=1.0, tolerance=TOLERANCE)
    with pytest.raises(ValueError, match="no max"):
        wrapped(model, batch(), key)


def test_l1_is_of_kernels(key, x64):
    value, aux = losses.l1(losses.standard(), weight=0.01)(net(), batch(), key)
    size = sum(np.abs(PARAMS[name]).sum() for name in ("u", "w", "v"))
    plain, _ = losses.standard()(net(), batch(), key)
    np.testing.assert_allclose([value, aux.metrics["l1"]], [plain + 0.01 * size, size], rtol=1e-12)


def test_certified_start_keeps_bounds_from_growing(key):
    """Shi et al. 2021, section 3.1: with N(0, 2 pi / fan_in^2) bounds are about as wide behind each layer; with
    torch's start they grow by a factor a layer. And the last layer is torch's."""
    widths = {}
    for start in (models.layers.ibp_normal, models.layers.torch_kernel):
        model = models.init(models.mlp(hidden=(300, 300, 300), num_classes=10, kernel_init=start), (8, 8, 1), key)
        x = jnp.full((4, 8, 8, 1), 0.5)
        layers = certified.relu_inputs(model, x, threats.linf(0.1))
        widths[start.__name__] = [float(jnp.mean(layer.upper - layer.lower)) for layer in layers]
        last = model.params["Dense_3"]["kernel"]
        assert float(jnp.abs(last).max()) <= 300**-0.5
    assert max(widths["ibp_normal"]) < 4 * widths["ibp_normal"][0]
    assert widths["torch_kernel"][2] > 10 * widths["torch_kernel"][0]
