"""Pools against a definition in plain loops, and against onnx's own evaluator where that follows the standard."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from robustgen.exchange import BadModel


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windows(size, kernel, stride, dilation, low, high, ceil_mode):
    """Positions of each window along one axis, as the standard (opset 22) has it, unpadded input at 0 .. size - 1."""
    reach = (kernel - 1) * dilation + 1
    rounded = math.ceil if ceil_mode else math.floor
    count = rounded((size + low + high - reach) / stride) + 1
    starts = [i * stride - low for i in range(count)]
    if ceil_mode and starts[-1] >= size:  # would begin in the padding after the input
        starts = starts[:-1]
    return [[start + j * dilation for j in range(kernel)] for start in starts]


def pooled(x, op, kernel, strides, dilations, pads, ceil_mode=0, count_include_pad=0):
    """MaxPool or AveragePool of x [1, 1, ...] in float64, window by window."""
    axes, sizes = range(len(kernel)), x.shape[2:]
    lists = [
        windows(sizes[a], kernel[a], strides[a], dilations[a], pads[a], pads[a + len(kernel)], ceil_mode) for a in axes
    ]
    out = np.zeros([len(each) for each in lists])
    for index in np.ndindex(*out.shape):
        found, counted = [], 0
        for position in itertools.product(*(lists[a][i] for a, i in zip(axes, index, strict=True))):
            inside = all(0 <= p < size for p, size in zip(position, sizes, strict=True))
            found += [float(x[(0, 0, *position)])] if inside else []
            padded = all(-pads[a] <= p < sizes[a] + pads[a + len(kernel)] for a, p in zip(axes, position, strict=True))
            counted += inside or (count_include_pad and padded)
        out[index] = (max(found) if found else -np.inf) if op == "MaxPool" else sum(found) / counted
    return out[None, None]


@st.composite
def pools(draw):
    axes = draw(st.integers(1, 2))
    kernel, strides, dilations = (draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, min(2, r - 1))) for r in reach * 2]
    sizes = [draw(st.integers(max(1, r - 1), r + 5)) for r in reach]
    assume(all(n + lo + hi >= r for n, lo, hi, r in zip(sizes, pads, pads[axes:], reach, strict=False)))
    return sizes, {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}


@given(pools(), st.booleans(), st.sampled_from([10, 12, 22]))
def test_max_pool(build, node, form, ceil_mode, opset):
    sizes, attributes = form
    x = numbers(1, 1, *sizes)
    net = build([node("MaxPool", "x", ceil_mode=int(ceil_mode), **attributes)], x.shape, opset=opset)
    expected = pooled(x, "MaxPool", *_forms(attributes), ceil_mode)
    np.testing.assert_array_equal(net(x), expected.astype(np.float32))


@given(pools(), st.booleans(), st.booleans(), st.sampled_from([19, 22]))
def test_average_pool(build, node, form, ceil_mode, include, opset):
    sizes, attributes = form
    x = numbers(1, 1, *sizes)
    flags = {"ceil_mode": int(ceil_mode), "count_include_pad": int(include), "auto_pad": "NOTSET"}
    try:
        expected = pooled(x, "AveragePool", *_forms(attributes), ceil_mode, include)
    except ZeroDivisionError:
        with pytest.raises(BadModel, match="a window over nothing but padding"):
            build([node("AveragePool", "x", **attributes, **flags)], x.shape, opset=opset)
        return
    net = build([node("AveragePool", "x", **attributes, **flags)], x.shape, opset=opset)
    np.testing.assert_allclose(net(x), expected, 1e-5, 1e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("mode", ["VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("kernel", "strides"), [((2, 3), (2, 1)), ((3, 2), (2, 3))])
def test_auto_pad(op, mode, kernel, strides, build, node):
    """The result has ceil(size / stride) elements an axis, the odd pad at the end for SAME_UPPER."""
    x = numbers(1, 1, 6, 7)
    net = build([node(op, "x", kernel_shape=kernel, strides=strides, auto_pad=mode)], x.shape, opset=11)
    lows, highs = [], []
    for size, k, s in zip(x.shape[2:], kernel, strides, strict=True):
        total = 0 if mode == "VALID" else max((math.ceil(size / s) - 1) * s + k - size, 0)
        lows.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        highs.append(total - lows[-1])
    np.testing.assert_allclose(net(x), pooled(x, op, kernel, strides, (1, 1), lows + highs), 1e-5, 1e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"])
def test_channels_and_batch(op, agrees, node):
    window = {} if "Global" in op else {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    for opset in (7, 11, 22):
        agrees([node(op, "x", **window)], numbers(2, 3, 7, 6), opset=opset)


@pytest.mark.parametrize(
    ("op", "attributes", "words"),
    [
        ("MaxPool", {}, "has no kernel_shape"),
        ("MaxPool", {"kernel_shape": [9, 9]}, "larger than its padded input"),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "as large as its window"),
        ("AveragePool", {"kernel_shape": [2]}, "slides over 1 spatial axes; there are 2"),
        ("AveragePool", {"kernel_shape": [2, 2], "ceil_mode": 2}, "accepted: 0, 1"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER", "dilations": [2, 1]}, "tools disagree"),
        ("MaxPool", {"kernel_shape": [3, 3], "auto_pad": "VALID", "ceil_mode": 1, "strides": [2, 2]}, "tools disagree"),
        ("GlobalMaxPool", {"axis": 1}, "attribute 'axis' is not supported"),
    ],
)
def test_wrong_attributes(op, attributes, words, build, node):
    with pytest.raises(BadModel, match=words):
        build([node(op, "x", **attributes)], [1, 1, 4, 4])


def test_indices_are_not_given(build, node):
    with pytest.raises(BadModel, match="output 'where' is not supported, only the first 1"):
        build([node("MaxPool", "x", "y where", kernel_shape=[2, 2])], [1, 1, 4, 4])


def _forms(attributes):
    return (attributes[name] for name in ("kernel_shape", "strides", "dilations", "pads"))
