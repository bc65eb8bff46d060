"""Reductions, softmax and normalisation against onnx's own evaluator."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from robustgen.exchange import BadModel

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def numbers(*shape, seed=0, low=-2.0):
    return np.random.default_rng(seed).uniform(low, 2.0, shape).astype(np.float32)


@given(SHAPES, st.sampled_from("Mean Sum Max Min Prod".split()), st.sampled_from([7, 13, 18, 20]), st.data())
def test_reductions(agrees, node, shape, name, opset, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    keepdims = data.draw(st.sampled_from([0, 1, None]))
    as_input = opset >= (13 if name == "Sum" else 18)
    if as_input:
        one = node(f"Reduce{name}", "x c" if axes else "x", keepdims=keepdims)
    else:
        one = node(f"Reduce{name}", "x", axes=axes or None, keepdims=keepdims)
    agrees([one], numbers(*shape), {"c": np.array(axes, np.int64)} if as_input and axes else {}, opset)


def test_no_axes_as_nothing_to_do(build, node):
    net = build([node("ReduceSum", "x", noop_with_empty_axes=1)], (2, 3), opset=13)
    np.testing.assert_array_equal(net(numbers(2, 3)), numbers(2, 3))


@settings(max_examples=10)
@given(SHAPES, st.sampled_from(["Softmax", "LogSoftmax"]), st.data())
def test_softmax(agrees, build, node, shape, op, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = 20 * numbers(*shape)
    agrees([node(op, "x", axis=axis)], x, opset=13)
    agrees([node(op, "x")], x, opset=13)
    before = axis % len(shape)
    flat = x.reshape(int(np.prod(shape[:before])), -1)  # opset 12: all axes from it on together
    expected = (
        flat - np.log(np.sum(np.exp(flat - flat.max(1, keepdims=True)), 1, keepdims=True)) - flat.max(1, keepdims=True)
    )
    expected = (expected if op == "LogSoftmax" else np.exp(expected)).reshape(shape)
    older = jax.jit(build([node(op, "x", axis=axis)], shape, opset=11))
    np.testing.assert_allclose(older(x), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (1, 3, 2, 5)])
@pytest.mark.parametrize("epsilon", [None, 1e-3])
def test_batch_normalization(shape, epsilon, agrees, build, node):
    constants = {name: numbers(3, seed=i, low=0.1) for i, name in enumerate("abmv")}
    one = node("BatchNormalization", "x a b m v", epsilon=epsilon, momentum=0.8)
    for opset in (14, 15):
        expected = agrees([one], numbers(*shape), constants, opset)
    for opset in (7, 9):  # for which the evaluator computes statistics of the batch; the standard: only with 5 outputs
        np.testing.assert_allclose(build([one], shape, constants, opset)(numbers(*shape)), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("axis", [-1, 1, -2, 2])
def test_layer_normalization(axis, agrees, node):
    x = numbers(2, 3, 4)
    constants = {"a": numbers(*x.shape[axis:], seed=1), "b": numbers(*x.shape[axis:], seed=2)}
    agrees([node("LayerNormalization", "x a b", axis=axis, epsilon=1e-2)], x, constants)
    agrees([node("LayerNormalization", "x a", axis=axis)], x, {"a": constants["a"]})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "words"),
    [
        ("BatchNormalization", "x a a a a", {"training_mode": 1}, "'training_mode' is 1; accepted: 0"),
        ("BatchNormalization", "x a a a x", {}, "input 'x' depends on the network's input"),
        ("BatchNormalization", "x a a a", {}, "takes 5 to 5 inputs; it has 4"),
        ("BatchNormalization", "x c a a a", {}, "parameters of shapes"),
        ("ReduceMax", "x", {"axes": [0, 0]}, "an axis twice"),
        ("ReduceMax", "x", {"axes": [5]}, "has axis 5; there are 2 axes"),
        ("LayerNormalization", "x c", {}, "scale of shape"),
    ],
)
def test_refused(op, inputs, attributes, words, build, node):
    constants = {"a": numbers(3), "c": numbers(4)}
    with pytest.raises(BadModel, match=f"{op} .*{words}"):
        build([node(op, inputs, **attributes)], (2, 3), constants, opset=17)
