"""What every preprocessing defence promises."""

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.spread import example_keys


def test_transform_goes_by_example_and_stays_in_the_box(transform_case, inputs, key):
    """The same under jit, and inside [0, 1] with values of its own."""
    x, keys = inputs((6, 9, 9, 3)), example_keys(key, 6)
    build = transform_case.build()
    transform = jax.jit(build)
    out = transform(x, keys)
    assert out.shape[0] == 6 and out.dtype == x.dtype and np.all((out >= 0) & (out <= 1))
    np.testing.assert_allclose(transform(x[::-1], keys[::-1]), out[::-1], atol=1e-6)
    np.testing.assert_allclose(build(x, keys), out, atol=1e-6)
    changed = out.shape != x.shape or jnp.any(jnp.abs(out - x) > 1e-3)
    assert changed != (transform_case.name == "compose")  # of nothing


def test_transform_has_no_nan_derivative(transform_case, inputs, key):
    """At constant images too, where norms and medians have ties."""
    transform = transform_case.build()
    for x in (inputs((2, 8, 8, 1)), jnp.full((2, 8, 8, 1), 0.5)):
        gradient = jax.grad(lambda z: jnp.sum(jnp.sin(transform(z, example_keys(key, 2)))))(x)
        assert jnp.all(jnp.isfinite(gradient))
