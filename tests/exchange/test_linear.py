"""Products and convolutions against onnx's own evaluator, over all attributes together."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import assume, given

from robustgen.exchange import BadModel


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(
    st.booleans(), st.booleans(), st.sampled_from([None, (), (3,), (2, 1), (2, 3)]), st.sampled_from([7, 11, 13, 22])
)
def test_gemm(agrees, node, left, right, bias, opset):
    a, b = numbers(*((4, 2) if left else (2, 4))), numbers(*((3, 4) if right else (4, 3)), seed=1)
    assume(bias is not None or opset >= 11)
    constants = {"b": b} | ({} if bias is None else {"c": numbers(*bias, seed=2)})
    flags = {"transA": int(left), "transB": int(right), "alpha": 0.5, "beta": 2.0}
    agrees([node("Gemm", "x b" if bias is None else "x b c", **flags)], a, constants, opset)
    agrees([node("Gemm", "b x", transA=int(not right), transB=int(not left))], a, {"b": b}, 13)


@pytest.mark.parametrize(
    ("a", "b"),
    [((4,), (4,)), ((4,), (4, 3)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 3))],
)
def test_matmul(a, b, agrees, node):
    agrees([node("MatMul", "x b")], numbers(*a), {"b": numbers(*b, seed=1)}, 13)
    agrees([node("MatMul", "a x")], numbers(*b), {"a": numbers(*a, seed=1)}, 13)


def test_a_product_of_values_with_themselves(agrees, node):
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("MatMul", "x t", "s"),
        node("Softmax", "s", "p", axis=-1),
    ]
    agrees([*nodes, node("MatMul", "p x")], numbers(2, 3, 4), opset=13)


@st.composite
def kernels(draw, transposed=False):
    """(spatial sizes, kernel, attributes) of one or two spatial axes; with the input channels of each group."""
    axes = draw(st.integers(1, 2))
    triple = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    kernel, strides, dilations = draw(triple), draw(triple), draw(triple)
    attributes = {"strides": strides, "dilations": dilations, "group": draw(st.sampled_from([1, 2]))}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
    else:
        attributes["auto_pad"] = mode
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    sizes = [draw(st.integers(1 if transposed else r, r + 5)) for r in reach]
    return sizes, kernel, attributes


@given(kernels(), st.booleans(), st.sampled_from([7, 11, 22]))
def test_conv(agrees, node, form, biased, opset):
    sizes, kernel, attributes = form
    constants = {"w": numbers(4, 3, *kernel, seed=1)} | ({"b": numbers(4, seed=2)} if biased else {})
    x = numbers(1, 3 * attributes["group"], *sizes)
    agrees([node("Conv", "x w b" if biased else "x w", **attributes)], x, constants, opset)


@given(kernels(transposed=True), st.booleans(), st.integers(0, 1))
def test_conv_transpose(agrees, node, form, biased, extra):
    """Of one group: at more the evaluator fails; see the transpose below."""
    sizes, kernel, attributes = form
    attributes = {name: value for name, value in attributes.items() if name not in ("auto_pad", "group")}
    if min(attributes["strides"]) > extra:
        attributes["output_padding"] = [extra] * len(kernel)
    pads = attributes.get("pads", [0] * 2 * len(kernel))
    axes = zip(sizes, kernel, attributes["strides"], attributes["dilations"], pads, pads[len(kernel) :], strict=False)
    assume(all((n - 1) * s + (k - 1) * d + 1 > low + high for n, k, s, d, low, high in axes))
    w, b = numbers(4, 3, *kernel, seed=1), numbers(3, seed=2)
    constants = {"w": w} | ({"b": b} if biased else {})
    agrees([node("ConvTranspose", "x w b" if biased else "x w", **attributes)], numbers(1, 4, *sizes), constants, 11)


@pytest.mark.parametrize("shape", [[9, 9], [8, 7], [10, 9]])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_conv_transpose_to_a_shape(shape, mode, build, node):
    """Total padding stride (n - 1) + reach - shape, the odd one at the end for SAME_UPPER: cut from the full result."""
    x, w = numbers(1, 2, 5, 4), numbers(2, 3, 3, 4, seed=1)
    shape_of = build(
        [node("ConvTranspose", "x w", strides=[2, 2], output_shape=shape, auto_pad=mode)], x.shape, {"w": w}
    )
    full = np.asarray(build([node("ConvTranspose", "x w", strides=[2, 2])], x.shape, {"w": w})(x))
    totals = np.array(full.shape[2:]) - shape
    begin = totals // 2 if mode == "SAME_UPPER" else totals - totals // 2
    expected = full[:, :, begin[0] : begin[0] + shape[0], begin[1] : begin[1] + shape[1]]
    np.testing.assert_allclose(shape_of(x), expected, 1e-6, 1e-6)


def test_conv_transpose_is_the_transpose(build, node):
    """<conv(x), y> = <x, conv_transpose(y)> for the same kernel, strides, pads and dilations."""
    attributes = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": 2}
    w, x = numbers(4, 3, 3, 2, seed=1), numbers(1, 6, 8, 7)
    conv = build([node("Conv", "x w", **attributes)], x.shape, {"w": w})
    back = build([node("ConvTranspose", "x w", **attributes)], conv.output_shape, {"w": w})
    assert back.output_shape == x.shape
    y = numbers(*conv.output_shape, seed=2)
    np.testing.assert_allclose(np.vdot(conv(x), y), np.vdot(x, back(y)), 1e-4)


def test_products_are_standard_primitives(build, node):
    conv = build(
        [
            node("Conv", "x w"),
        ],
        [1, 3, 5, 5],
        {"w": numbers(2, 3, 3, 3)},
    )
    text = str(jax.make_jaxpr(conv)(numbers(1, 3, 5, 5)))
    assert text.count("conv_general_dilated[") == 1 and "HIGHEST" in text
    gemm = build([node("Gemm", "x w b", transB=1)], [1, 4], {"w": numbers(2, 4), "b": numbers(2)})
    text = str(jax.make_jaxpr(gemm)(numbers(1, 4)))
    assert text.count("dot_general[") == 1 and "transpose" not in text and "HIGHEST" in text


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"group": 2}, "has 2 groups, 3 channels"),
        ({"kernel_shape": [2, 2]}, "kernel_shape"),
        ({"strides": [0, 1]}, "strides"),
        ({"pads": [1, 1]}, "pads"),
        ({"pads": [-1, 0, 0, 0]}, "pads"),
        ({"auto_pad": "SOME"}, "accepted: NOTSET, VALID, SAME_UPPER, SAME_LOWER"),
        ({"padding": 3}, "attribute 'padding' is not supported"),
        ({"group": 1.0}, "attribute 'group'"),
    ],
)
def test_wrong_attributes(attributes, words, build, node):
    with pytest.raises(BadModel, match="Conv .*" + words):
        build([node("Conv", "x w", **attributes)], [1, 3, 5, 5], {"w": numbers(2, 3, 3, 3)})
