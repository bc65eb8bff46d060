"""Tracing: calls are seen through, what is exact stays exact, and what is not covered is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen.certify import RULES, UnknownPrimitive, bound
from robustgen.certify.interpreter import evaluate, trace
from robustgen.certify.rules import WHOLE
from robustgen.core import Interval

BOX = Interval(jnp.array([-1.0, 0.5, 2.0]), jnp.array([1.0, 0.75, 2.0]))


def names(fn, x=BOX.lower) -> list[str]:
    return [equation.name for equation in trace(fn, x, WHOLE).equations]


def same(a: Interval, b: Interval) -> None:
    np.testing.assert_array_equal(a.lower, b.lower)
    np.testing.assert_array_equal(a.upper, b.upper)


def custom_product(derivative):
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), derivative)
    return product


def test_the_program_computes_the_function():
    def fn(x):
        table = jnp.sort(jnp.arange(3.0) * 2)
        return jax.jit(lambda v: jax.checkpoint(jnp.tanh)(v) * table)(x) + lax.cumsum(x)

    program = trace(fn, BOX.lower)
    x = jnp.array([0.3, -0.2, 1.1])
    np.testing.assert_allclose(evaluate(program, {program.input: x}, [program.output])[0], fn(x), rtol=1e-6)


def test_calls_are_inlined():
    @jax.custom_jvp
    def halved(x):
        return x / 2

    halved.defjvp(lambda primals, tangents: (halved(*primals), tangents[0]))
    fn = jax.checkpoint(jax.jit(lambda x: halved(jnp.exp(x))))
    assert names(fn) == ["exp", "div"]
    same(bound(fn, BOX), Interval(jnp.exp(BOX.lower) / 2, jnp.exp(BOX.upper) / 2))


def test_custom_vjp_is_seen_through_and_keeps_its_derivative():
    w = jnp.array([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]])
    marked = custom_product(lambda residuals, g: (7.0 * g @ residuals[1].T, 7.0 * jnp.outer(residuals[0], g)))
    same(bound(lambda x: marked(x, w), BOX), bound(lambda x: x @ w, BOX))

    def total(w, product):
        return jnp.sum(bound(lambda x: product(x, w), BOX).upper)

    np.testing.assert_allclose(jax.grad(total)(w, marked), 7 * jax.grad(total)(w, jnp.matmul), rtol=1e-5)


def test_custom_vjp_of_several_equations_is_inlined():
    @jax.custom_vjp
    def fn(x):
        return jnp.exp(x) + 1

    fn.defvjp(lambda x: (fn(x), x), lambda x, g: (g,))
    assert names(fn) == ["exp", "add"]


def test_custom_vjp_that_returns_its_product_twice_is_inlined():
    @jax.custom_vjp
    def fn(x, w):
        product = x @ w
        return product, product

    fn.defvjp(lambda x, w: (fn(x, w), (x, w)), lambda residuals, g: residuals)
    w = jnp.array([[1.0, -2.0], [0.5, 0.25], [-1.0, 3.0]])
    same(bound(lambda x: sum(fn(x, w)), BOX), bound(lambda x: x @ w + x @ w, BOX))


def test_the_fast_convolution_of_the_models():
    conv = pytest.importorskip("robustgen.models.conv")
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    fast = functools.partial(conv.conv2d, stride=2, padding=((1, 1), (1, 1)))
    layout = ("NHWC", "HWIO", "NHWC")
    plain = functools.partial(
        lax.conv_general_dilated, window_strides=(2, 2), padding=((1, 1), (1, 1)), dimension_numbers=layout
    )

    def total(kernel, conv):
        result = bound(lambda v: conv(v, kernel), Interval(x - 0.1, x + 0.1))
        return jnp.sum(result.upper**2) - jnp.sum(result.lower)

    values, gradients = zip(*(jax.value_and_grad(total)(kernel, c) for c in (fast, plain)), strict=True)
    np.testing.assert_allclose(*values, rtol=1e-5)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-3)


def test_a_name_alone_is_not_recognised():
    @jax.jit
    def silu(x):
        return -x * jax.nn.sigmoid(x)

    assert names(jax.nn.silu) == ["silu"]
    assert names(silu) == ["neg", "logistic", "mul"]


def test_what_does_not_depend_on_the_input_is_exact():
    def fn(x):
        order = jnp.argsort(jnp.array([3.0, 1.0, 2.0]))  # sorting by keys has no rule
        noise = jax.random.normal(jax.random.key(0), (3,))
        steps = lax.while_loop(lambda i: i < 4, lambda i: i + 1, 0)
        return x[order] + noise * steps

    shift = fn(jnp.zeros(3))
    result = bound(fn, BOX)
    np.testing.assert_allclose(result.lower, BOX.lower[jnp.array([1, 2, 0])] + shift, rtol=1e-6)


def test_a_function_that_ignores_its_input():
    same(bound(lambda x: jnp.ones(2), BOX), Interval(jnp.ones(2), jnp.ones(2)))


@pytest.mark.parametrize(
    ("fn", "primitive"),
    [
        (lambda x: jnp.fft.fft(x).real, "fft"),
        (jnp.argmax, "argmax"),
        (lambda x: jnp.arange(3)[x.astype(int)], "gather"),
        (lambda x: lax.sort((x, x), num_keys=1)[1], "sort"),
        (lambda x: lax.while_loop(lambda v: jnp.sum(v) < 9, lambda v: v + 1, x), "while"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(fn, primitive):
    with pytest.raises(UnknownPrimitive, match=primitive) as error:
        bound(fn, BOX)
    assert "rules=" in str(error.value) and "\n" not in str(error.value)


def test_a_perturbed_choice_bounds_the_branches_it_may_take():
    def fn(x):
        return lax.switch(x[0].astype(int), [lambda v: v, lambda v: v + 5, lambda v: v + 100], x)  # x[0] <= 1

    same(bound(fn, BOX), Interval(BOX.lower, BOX.upper + 5))


def test_a_rule_of_ones_own():
    def rule(equation, x):
        return Interval(*(jnp.full(x.lower.shape, end) for end in (0.0, 2.0)))

    def anywhere(equation, x):
        return Interval(jnp.zeros(()), jnp.array(x.lower.size - 1.0))

    result = bound(jnp.argmax, BOX, rules={**RULES, "argmax": anywhere})
    assert (result.lower, result.upper) == (0.0, 2.0)
    assert bound(jnp.fft.fft, BOX, rules={**RULES, "fft": rule, "convert_element_type": rule}).upper[0] == 2.0


def test_several_results_are_refused():
    with pytest.raises(TypeError, match="one array"):
        bound(lambda x: (x, x), BOX)


def test_products_are_computed_at_the_highest_precision():
    w = jnp.ones((3, 2))
    program = trace(lambda x: lax.dot(x, w, precision="bfloat16"), BOX.lower)
    (equation,) = program.equations
    assert equation.params["precision"] == (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    jaxpr = str(jax.make_jaxpr(lambda box: bound(lambda x: x @ w, box))(BOX))
    assert jaxpr.count("Precision.HIGHEST") >= 2 and "Precision.DEFAULT" not in jaxpr
