"""Values and derivatives of `conv2d` against XLA's own, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen.models.conv import conv2d, native_gradients

# input [H, W, C], kernel [h, w, D], stride, padding
CASES = {
    "one channel": ((8, 7, 1), (3, 3, 5), 1, ((0, 0), (0, 0))),
    "few channels, same": ((6, 8, 3), (3, 3, 4), 1, ((1, 1), (1, 1))),
    "many channels": ((7, 6, 6), (3, 3, 5), 1, ((0, 0), (0, 0))),
    "many channels, same": ((6, 6, 8), (3, 3, 8), 1, ((1, 1), (1, 1))),
    "even kernel, uneven padding": ((6, 7, 5), (2, 4, 3), 1, ((0, 1), (2, 1))),
    "padding beyond the kernel": ((5, 5, 6), (2, 2, 3), 1, ((2, 3), (3, 2))),
    "stride 2 as in ResNets": ((8, 8, 6), (3, 3, 7), 2, ((1, 1), (1, 1))),
    "stride 2 as in Wong & Kolter, one channel": ((8, 8, 1), (4, 4, 6), 2, ((1, 1), (1, 1))),
    "stride 2 as in Wong & Kolter": ((8, 8, 6), (4, 4, 5), 2, ((1, 1), (1, 1))),
    "stride 2, last row unseen": ((8, 7, 5), (3, 3, 4), 2, ((0, 0), (0, 0))),
    "stride 3, kernel smaller": ((9, 8, 5), (2, 2, 4), 3, ((0, 0), (1, 0))),
    "one by one": ((6, 6, 5), (1, 1, 4), 1, ((0, 0), (0, 0))),
    "one by one, stride 2": ((7, 6, 5), (1, 1, 4), 2, ((0, 0), (0, 0))),
    "one by one, padded": ((4, 4, 5), (1, 1, 4), 1, ((1, 1), (1, 1))),
}


def native(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def example(case, batch=2):
    image, (h, w, features), stride, padding = CASES[case]
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(batch, *image)), rng.normal(size=(h, w, image[2], features))
    return jnp.asarray(x), jnp.asarray(kernel), {"stride": stride, "padding": padding}


def close(tree, expected, tolerance=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), tree, expected)


def penalty(conv, how):
    """Cubic in the convolution, so that second derivatives depend on all of x, kernel and g."""
    return lambda x, kernel: jnp.sum(jnp.sin(conv(x, kernel, **how)) + conv(x, kernel, **how) ** 3 / 50)


@pytest.mark.parametrize("case", CASES)
def test_value_and_both_gradients_are_xlas(case, x64):
    x, kernel, how = example(case)
    close(conv2d(x, kernel, **how), native(x, kernel, **how))
    ours, theirs = (jax.value_and_grad(penalty(conv, how), (0, 1)) for conv in (conv2d, native))
    close(jax.jit(ours)(x, kernel), jax.jit(theirs)(x, kernel))


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_norm_of_the_gradients_are_xlas(case, x64):
    x, kernel, how = example(case)

    def squared_norm(conv):
        gradients = jax.grad(penalty(conv, how), (0, 1))
        return jax.jit(jax.grad(lambda *a: sum(jnp.sum(g**2) for g in gradients(*a)), (0, 1)))

    close(squared_norm(conv2d)(x, kernel), squared_norm(native)(x, kernel), 1e-10)
