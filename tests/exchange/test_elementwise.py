"""Operators of single elements against onnx's own evaluator, over opsets, attributes and broadcasts."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

UNARY = "Neg Relu Sigmoid Tanh Softplus Erf Exp Sin Cos Tan Abs Sign Floor Ceil Round Softsign Identity".split()
SLOPED = {"LeakyRelu": {"alpha": 0.3}, "Elu": {"alpha": 1.7}, "Selu": {"alpha": 1.5, "gamma": 0.9}}
SINCE = {"Erf": 9, "Sign": 9, "Round": 11, "HardSwish": 14, "Gelu": 20}


def numbers(*shape, low=-3.0, high=3.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("op", UNARY)
def test_unary(op, agrees, node):
    for opset in (max(7, SINCE.get(op, 7)), 13, 22):
        agrees([node(op, "x")], numbers(2, 5), opset=opset)


def test_halves_round_to_even(agrees, node):
    agrees([node("Round", "x")], np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4999], np.float32))


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_of_positive_numbers(op, agrees, node):
    agrees([node(op, "x")], numbers(7, low=0.1), opset=9)


@pytest.mark.parametrize("op", [*SLOPED, "HardSigmoid", "HardSwish", "Gelu"])
def test_with_attributes(op, agrees, node):
    opset = max(9, SINCE.get(op, 9))
    agrees([node(op, "x")], numbers(3, 4), opset=opset)
    others = {**SLOPED, "HardSigmoid": {"alpha": 0.4, "beta": 0.3}, "Gelu": {"approximate": "tanh"}}
    agrees([node(op, "x", **others.get(op, {}))], numbers(3, 4), opset=opset)


@st.composite
def broadcasts(draw):
    """Two shapes that broadcast to one of at most 4 axes."""
    whole = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))

    def part():
        kept = whole[draw(st.integers(0, len(whole))) :]
        return [1 if draw(st.booleans()) else size for size in kept]

    return part() or [1], part()


@given(
    broadcasts(), st.sampled_from("Add Sub Mul Div Pow Max Min Sum Mean PRelu".split()), st.sampled_from([8, 13, 22])
)
def test_binary(agrees, node, shapes, op, opset):
    shapes = shapes if op != "PRelu" else (np.broadcast_shapes(*shapes), shapes[1])
    other = numbers(*shapes[1], low=0.5, seed=1)
    agrees([node(op, "x c")], numbers(*shapes[0], low=0.2), {"c": other}, opset)
    if op not in ("Pow", "PRelu"):
        agrees([node(op, "c x")], numbers(*shapes[0], low=0.2), {"c": other}, opset)


@given(broadcasts(), st.sampled_from("Greater Less GreaterOrEqual LessOrEqual Equal".split()), st.integers(0, 9))
def test_comparisons_choose(agrees, node, shapes, op, seed):
    whole = np.broadcast_shapes(*shapes)
    x, other = (np.round(numbers(*shape, seed=seed + i)) for i, shape in enumerate((whole, shapes[1])))
    nodes = [node(op, "x c", "where"), node("Not", "where", "not"), node("Or", "not where", "all")]
    nodes += [node("And", "all not", "chosen"), node("Where", "chosen x c")]
    agrees(nodes, x, {"c": other}, 17)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, -2.0, 2.5])
def test_constant_powers(exponent, agrees, node):
    agrees([node("Pow", "x c")], numbers(5, low=0.2), {"c": np.float32(exponent)})
    agrees([node("Pow", "c x")], numbers(5), {"c": np.float32(abs(exponent) + 0.1)})


def test_powers_are_products(build, node):
    square = build([node("Pow", "x c")], [3], {"c": np.float32(2)})
    assert "integer_pow" in str(jax.make_jaxpr(square)(numbers(3))) or "square" in str(
        jax.make_jaxpr(square)(numbers(3))
    )
    np.testing.assert_allclose(square(np.float32([-2, 0, 3])), [4, 0, 9])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.5), (None, 0.5), (-1.0, None), (None, None), (1.0, 0.0)])
def test_clip(low, high, agrees, build, node):
    x = numbers(9)
    given_ = {name: np.float32(value) for name, value in (("low", low), ("high", high)) if value is not None}
    names = ["x", *("_" if value is None else name for name, value in (("low", low), ("high", high)))]
    expected = agrees([node("Clip", " ".join(names))], x, given_, 13)
    older = build([node("Clip", "x", min=low, max=high)], x.shape, opset=7)
    np.testing.assert_array_equal(older(x), expected)


def test_softplus_and_erf_are_exact_far_out(agrees, node):
    for op in ("Softplus", "Sigmoid", "Erf", "Tanh"):
        agrees([node(op, "x")], np.array([-80, -20, -1e-4, 0, 1e-4, 20, 80], np.float32), opset=13)
