"""Values and derivatives of `conv2d` against XLA's own, in float64."""

import re

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

SECOND_ORDER = [
    "one channel",
    "many channels, same",
    "padding beyond the kernel",
    "stride 2 as in ResNets",
    "stride 2 as in Wong & Kolter, one channel",
    "one by one, padded",
]


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


def differentiated(conv, how):
    return jax.jit(jax.value_and_grad(penalty(conv, how), (0, 1)))


def squared_gradient_norm(conv, how):
    gradients = jax.grad(penalty(conv, how), (0, 1))
    return lambda x, kernel: sum(jnp.sum(g**2) for g in gradients(x, kernel))


@pytest.mark.parametrize("case", CASES)
def test_value_and_both_gradients_are_xlas(case, x64):
    x, kernel, how = example(case)
    close(conv2d(x, kernel, **how), native(x, kernel, **how))
    close(differentiated(conv2d, how)(x, kernel), differentiated(native, how)(x, kernel))


@pytest.mark.parametrize("case", SECOND_ORDER)
def test_second_derivatives_are_xlas(case, x64):
    x, kernel, how = example(case)
    ours, theirs = (jax.jit(jax.grad(squared_gradient_norm(conv, how), (0, 1))) for conv in (conv2d, native))
    close(ours(x, kernel), theirs(x, kernel), 1e-10)


@pytest.mark.parametrize("case", ["few channels, same", "stride 2 as in ResNets"])
def test_vmap_over_inputs_and_kernels(case, x64):
    x, kernel, how = example(case)
    xs, kernels = jnp.stack([x, 2 * x, x - 1]), jnp.stack([kernel, 1 - kernel, 3 * kernel])
    mapped = jax.jit(jax.vmap(jax.grad(penalty(conv2d, how), (0, 1))))(xs, kernels)
    for i in range(3):
        expected = jax.jit(jax.grad(penalty(native, how), (0, 1)))(xs[i], kernels[i])
        close(jax.tree.map(lambda a, i=i: a[i], mapped), expected, 1e-11)


def test_descent_in_scan_is_descent_step_by_step(x64):
    x, kernel, how = example("many channels, same")
    descend = lambda conv, k: k - 1e-3 * jax.grad(penalty(conv, how), 1)(x, k)  # noqa: E731
    scanned, _ = jax.jit(lambda k: jax.lax.scan(lambda k, _: (descend(conv2d, k), None), k, None, length=3))(kernel)
    for _ in range(3):
        kernel = jax.jit(lambda k: descend(native, k))(kernel)
    close(scanned, kernel)


def test_float32_gradients_are_float64_gradients_rounded(x64):
    x, kernel, how = example("many channels, same")
    single = differentiated(conv2d, how)(x.astype(jnp.float32), kernel.astype(jnp.float32))[1]
    assert all(g.dtype == jnp.float32 for g in single)
    close(single, differentiated(native, how)(x, kernel)[1], 1e-3)


def test_forward_mode_needs_native_gradients_and_then_works(x64):
    x, kernel, how = example("stride 2 as in ResNets")
    push = jax.jit(lambda x: jax.jvp(lambda x: conv2d(x, kernel, **how), (x,), (jnp.ones_like(x),))[1])
    with pytest.raises(TypeError):
        push(x)
    with native_gradients():
        close(push(x), native(jnp.ones_like(x), kernel, **how))
    with pytest.raises(TypeError):
        push(x)  # the context is part of jit's cache key


def test_gradients_in_loops_keep_a_layout_that_has_a_fast_kernel():
    """What XLA's own gradients do not, and the reason for all this: see jax issue 12868."""
    x, kernel, how = example("many channels, same")

    def layouts(conv):
        step = jax.grad(penalty(conv, how), (0, 1))
        loop = jax.jit(lambda a: jax.lax.fori_loop(0, 9, lambda _, a: step(*a), a))
        return set(re.findall(r"dim_labels=(\S+?)[,\s]", loop.lower((x, kernel)).compile().as_text()))

    assert layouts(conv2d) == {"b01f_01io->b01f"}
    assert layouts(native) > {"b01f_01io->b01f"}


def test_outside_of_derivatives_it_is_one_plain_convolution():
    x, kernel, how = example("few channels, same")
    jaxpr = str(jax.make_jaxpr(lambda x: conv2d(x, kernel, **how))(x))
    assert jaxpr.count("conv_general_dilated[") == 1 and "mul" not in jaxpr


def test_strided_layers_of_few_channels_are_one_convolution_at_the_highest_precision_alone():
    x, kernel, how = example("stride 2 as in Wong & Kolter, one channel")

    def convolutions():
        return str(jax.make_jaxpr(lambda x: conv2d(x, kernel, **how))(x)).count("conv_general_dilated[")

    assert convolutions() == 0  # sums of shifts, a tenth of the time
    with jax.default_matmul_precision("highest"):
        assert convolutions() == 1  # what certifiers bound
