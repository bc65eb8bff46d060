"""Pooling against NumPy and against Linen's pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.models.pool import global_mean_pool, max_pool


@pytest.mark.parametrize(("shape", "size"), [((2, 6, 8, 3), 2), ((1, 7, 5, 2), 2), ((2, 9, 6, 1), 3)])
def test_values_and_gradients_are_linens_where_nothing_ties(shape, size, key):
    x = jax.random.permutation(key, jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)
    weight = lambda y: jnp.sum(jnp.sin(y) * y)  # noqa: E731
    theirs = lambda x: nn.max_pool(x, (size, size), (size, size))  # noqa: E731
    np.testing.assert_array_equal(max_pool(x, size=size), theirs(x))
    ours = jax.grad(lambda x: weight(max_pool(x, size=size)))(x)
    np.testing.assert_allclose(ours, jax.grad(lambda x: weight(theirs(x)))(x), rtol=1e-6)


def test_ties_keep_the_value_and_share_the_gradient():
    x = jnp.array([[3.0, 3.0], [1.0, 3.0]]).reshape(1, 2, 2, 1)
    value, gradient = jax.value_and_grad(lambda x: max_pool(x, size=2).sum())(x)
    assert value == 3
    np.testing.assert_allclose(gradient.ravel(), [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_vmap_and_second_derivative(key):
    x = jax.random.normal(key, (3, 2, 4, 4, 2))
    cubes = jax.vmap(lambda x: jnp.sum(max_pool(x, size=2) ** 3))
    np.testing.assert_allclose(cubes(x), [jnp.sum(max_pool(each, size=2) ** 3) for each in x], rtol=1e-6)
    one = lambda x: jnp.sum(max_pool(x, size=2) ** 3)  # noqa: E731
    second = jax.grad(lambda x: jnp.sum(jax.grad(one)(x) ** 2))(x[0])
    largest = np.where(np.asarray(jax.grad(lambda x: max_pool(x, size=2).sum())(x[0])) > 0, x[0], 0)
    np.testing.assert_allclose(second, 36 * largest**3, rtol=1e-4, atol=1e-5)


def test_global_mean_is_taken_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(2.0)
    mean = global_mean_pool(x)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, [[1 + 1 / 4096]], rtol=1e-7)
