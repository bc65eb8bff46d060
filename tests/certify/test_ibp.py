"""Margins by interval bounds: against enumeration, a NumPy oracle, samples and PGD."""

import dataclasses
import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from robustgen import threats
from robustgen.certify import bound, ibp, margin_lower, margins_lower
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Interval


def layers(sizes, seed=0):
    random = np.random.RandomState(seed)
    return [(random.randn(a, b) / np.sqrt(a), 0.1 * random.randn(b)) for a, b in itertools.pairwise(sizes)]


def mlp(weights):
    def logits(x):
        h = x.reshape(x.shape[0], -1)
        for w, b in weights[:-1]:
            h = jax.nn.relu(h @ jnp.asarray(w, x.dtype) + jnp.asarray(b, x.dtype))
        return h @ jnp.asarray(weights[-1][0], x.dtype) + jnp.asarray(weights[-1][1], x.dtype)

    return logits


def oracle(weights, low, high, y):
    """Gowal et al. 2018, eqs. 6, 7 and section 3 for one example, in NumPy."""
    for w, b in weights[:-1]:
        centre, radius = (low + high) / 2 @ w + b, (high - low) / 2 @ np.abs(w)
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    w, b = weights[-1]
    w, b = w[:, [y]] - w, b[y] - b
    return (low + high) / 2 @ w + b - (high - low) / 2 @ np.abs(w)


def margins_of(logits_fn, x, y, threat):
    """`margins_lower` compiled, which is what one uses and is faster than its operations one by one."""
    return jax.jit(lambda x, y: margins_lower(logits_fn, x, y, threat))(x, y)


def labelled(count, shape, classes=3, seed=1):
    random = np.random.RandomState(seed)
    return jnp.asarray(random.uniform(size=(count, *shape))), jnp.asarray(random.randint(classes, size=count))


def test_exact_for_a_linear_model(x64):
    weights = layers([5, 3])
    x, y = labelled(4, (5,))
    logits_fn, threat = mlp(weights), threats.linf(0.1, clip=None)
    corners = np.array(list(itertools.product([-0.1, 0.1], repeat=5)))
    logits = np.stack([logits_fn(x + corner) for corner in corners])
    margins = np.take_along_axis(logits, np.asarray(y)[None, :, None], 2) - logits
    np.testing.assert_allclose(margins_of(logits_fn, x, y, threat), margins.min(0), atol=1e-6)


def test_support_makes_l2_exact_for_a_linear_model(x64):
    weights = layers([5, 3])
    x, y = labelled(4, (5,))
    w, b = weights[0]
    for i, margins in enumerate(margins_of(mlp(weights), x, y, threats.l2(0.2, clip=None))):
        difference = w[:, [int(y[i])]] - w
        expected = np.asarray(x[i]) @ difference + b[int(y[i])] - b - 0.2 * np.linalg.norm(difference, axis=0)
        np.testing.assert_allclose(margins, expected, atol=1e-6)


def test_one_hidden_unit_per_input_is_exact_by_enumeration(x64):
    """A diagonal first layer keeps hidden units independent, so the elided margin is the true minimum."""
    random = np.random.RandomState(2)
    scale, w = random.randn(5), random.randn(5, 3)
    x, y = labelled(1, (5,))

    def logits_fn(x):
        return jax.nn.relu(x * scale - 0.2) @ w

    corners = np.asarray(x) + np.array(list(itertools.product([-0.15, 0.15], repeat=5)))
    logits = np.asarray(logits_fn(corners))
    truth = (logits[:, [int(y[0])]] - logits).min(0)
    np.testing.assert_allclose(margins_of(logits_fn, x, y, threats.linf(0.15, clip=None))[0], truth, atol=1e-6)


def test_the_numpy_oracle(x64):
    weights = layers([12, 9, 8, 4])
    x, y = labelled(6, (3, 4), classes=4)
    result = margins_of(mlp(weights), x, y, threats.linf(0.05))
    for i in range(6):
        low, high = (np.clip(np.asarray(x[i], float).ravel() + side * 0.05, 0, 1) for side in (-1, 1))
        np.testing.assert_allclose(result[i], oracle(weights, low, high, int(y[i])), atol=1e-6)


def test_elision_is_tighter_than_the_bounds_of_the_logits():
    weights = layers([12, 9, 8, 4])
    x, y = labelled(6, (12,), classes=4)
    threat = threats.linf(0.05)
    logits = jax.jit(lambda x: bound(mlp(weights), Interval(*threat.bounds(x))))(x)
    plain = jnp.take_along_axis(logits.lower, y[:, None], 1) - logits.upper
    others = np.arange(4) != np.asarray(y)[:, None]
    assert np.all((margins_of(mlp(weights), x, y, threat) > plain)[others])


class Residual(nn.Module):
    """Convolutions, batch norm, residual sum, concatenation, both poolings."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        h = h + nn.leaky_relu(nn.Conv(4, (3, 3))(h), 0.2)
        h = jnp.concatenate([nn.max_pool(h, (3, 3), (2, 2)), nn.avg_pool(h, (3, 3), (2, 2))], -1)
        return nn.Dense(3)(nn.relu(nn.Dense(8)(jnp.mean(h, (1, 2)))))


class Normed(nn.Module):
    """Layer norm, gelu, attention with softmax: loose, but sound."""

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(epsilon=0.1)(nn.Dense(4)(x.reshape(x.shape[0], 6, 6)))
        h = h + nn.MultiHeadDotProductAttention(num_heads=2)(nn.gelu(h))
        return nn.Dense(3)(h.reshape(x.shape[0], -1))


def linen(module):
    def make(x):
        variables = jax.jit(module.init)(jax.random.key(0), x)
        return jax.jit(lambda z: module.apply(variables, z))

    return make


def nnx_net(x):
    first, second = (nnx.Linear(*shape, rngs=nnx.Rngs(0)) for shape in ((36, 10), (10, 3)))
    return lambda z: second(nnx.silu(first(z.reshape(z.shape[0], -1))))


@dataclasses.dataclass
class Module:
    """As in Equinox: a callable of one example that holds its arrays."""

    w: jax.Array
    v: jax.Array

    def __call__(self, row):
        return jnp.tanh(row.ravel() @ self.w) @ self.v


def equinox_like(x):
    module = Module(*(jnp.asarray(w, jnp.float32) for w, _ in layers([36, 8, 3])))
    return jax.vmap(module)


NETS = {"residual": linen(Residual()), "normed": linen(Normed()), "nnx": nnx_net, "equinox": equinox_like,
        "function": lambda x: mlp(layers([36, 10, 3]))}  # fmt: skip


def worst_found(logits_fn, x, y, threat, key):
    """The smallest margin over 1000 members and the ends of 30 steps of gradient descent on the margin."""

    @jax.jit
    def margin(z):
        logits = logits_fn(z)
        others = jnp.where(jnp.arange(3) == y[:, None], -jnp.inf, logits)
        return jnp.take_along_axis(logits, y[:, None], 1)[:, 0] - jnp.max(others, 1)

    @jax.jit
    def descend(z):
        return threat.project(x, z - threat.ascend(jax.grad(lambda v: jnp.sum(margin(v)))(z), 0.01))

    @jax.jit
    def samples(key):
        return lax.map(lambda k: margin(threat.sample(x, jax.random.split(k, x.shape[0]))), jax.random.split(key, 1000))

    z = x
    for _ in range(30):
        z = descend(z)
    return jnp.minimum(jnp.min(samples(key), 0), margin(z))


@pytest.mark.parametrize("threat", [threats.linf(0.02), threats.l2(0.1)], ids=["linf", "l2"])
@pytest.mark.parametrize("name", NETS)
def test_no_member_of_the_set_has_a_smaller_margin(name, threat, key):
    x, y = labelled(3, (6, 6, 1))
    logits_fn = NETS[name](x)
    lower = jax.jit(lambda x, y: margin_lower(logits_fn, x, y, threat))(x, y)
    found = worst_found(logits_fn, x, y, threat, key)
    assert np.all(np.isfinite(lower)) and np.all(lower <= found)


@pytest.mark.parametrize("name", NETS)
def test_at_radius_zero_the_margin_is_the_models(name):
    x, y = labelled(3, (6, 6, 1))
    logits_fn = NETS[name](x)
    logits = logits_fn(x)
    expected = jnp.take_along_axis(logits, y[:, None], 1) - logits
    np.testing.assert_allclose(margins_of(logits_fn, x, y, threats.linf(0.0)), expected, atol=3e-5)


def test_eager_jit_and_many_radii_agree_in_one_trace():
    logits_fn = linen(Residual())(labelled(3, (6, 6, 1))[0])
    radii = jnp.array([0.0, 0.01, 0.03])
    lower = jax.jit(chex.assert_max_traces(lambda e, x, y: margin_lower(logits_fn, x, y, threats.linf(e)), n=1))
    for seed in range(2):
        x, y = labelled(3, (6, 6, 1), seed=seed)
        jitted = jnp.stack([lower(e, x, y) for e in radii])
        many = jax.vmap(lambda e, x=x, y=y: margin_lower(logits_fn, x, y, threats.linf(e)))(radii)
        np.testing.assert_allclose(jitted, many, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(jitted[1], margin_lower(logits_fn, x, y, threats.linf(0.01)), rtol=1e-4, atol=1e-5)
        assert np.all(jnp.diff(jitted, axis=0) < 0)


def test_the_certificate(key):
    """x = 0.5 or so against a threshold: inside, at the brink, beyond."""

    def logits_fn(x):
        return jnp.stack([x[:, 0], 1 - x[:, 0]], 1)

    x, y = jnp.array([[0.8], [0.55], [0.3], [0.3]]), jnp.array([0, 0, 0, 1])
    certificate = jax.jit(lambda x, y: ibp(threats.linf(0.1))(logits_fn, x, y, key))(x, y)
    np.testing.assert_array_equal(certificate.status, [VERIFIED, UNKNOWN, FALSIFIED, VERIFIED])
    np.testing.assert_allclose(certificate.margin_lower, [0.4, -0.1, -0.6, 0.2], atol=1e-5)
    assert logits_fn(certificate.x_adv)[2].argmax() != y[2]


def test_a_box_away_from_x_is_falsified_by_its_own_member(key):
    certificate = ibp(threats.box(jnp.array([0.1]), jnp.array([0.2])))(
        lambda x: jnp.concatenate([x, 1 - x], 1), jnp.array([[0.9]]), jnp.array([0]), key
    )
    assert certificate.status[0] == FALSIFIED
    np.testing.assert_allclose(certificate.x_adv, [[0.2]])


def test_logits_that_ignore_x(key):
    x, y = labelled(2, (4,))
    lower = margins_of(lambda z: jnp.zeros((z.shape[0], 3)) + jnp.arange(3.0), x, y, threats.linf(0.1))
    np.testing.assert_allclose(lower, y[:, None] - jnp.arange(3.0)[None], atol=1e-5)


def test_unbounded_intermediate_values_certify_nothing(key):
    x, y = labelled(3, (4,), classes=2)
    certificate = ibp(threats.linf(0.3))(lambda z: jnp.log(z - 0.5)[:, :2], x, y, key)
    assert not np.any(certificate.status == VERIFIED)
