"""Operators that arrange, pick or repeat, against onnx's own evaluator over opsets."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings

from robustgen.exchange import BadModel

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def ints(*values):
    return np.array(values, np.int64)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=12)
@given(SHAPES, st.data())
def test_flatten_and_transpose(agrees, node, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape)))
    agrees([node("Flatten", "x", axis=axis)], numbers(*shape), opset=13)
    perm = data.draw(st.permutations(range(len(shape))))
    agrees([node("Transpose", "x", perm=perm)], numbers(*shape), opset=13)
    agrees([node("Transpose", "x")], numbers(*shape), opset=13)


@pytest.mark.parametrize("shape", [(6, 4), (0, -1), (2, 0, 2, 2), (-1,), (1, 24, 1), (-1, 3)])
def test_reshape(shape, agrees, node):
    agrees([node("Reshape", "x c")], numbers(2, 3, 4), {"c": ints(*shape)}, 13)


@pytest.mark.parametrize("shape", [(5, 5), (-1, -1), (0, 0, 0, 0), (-2, 12), (7, -1), (2**40, -1)])
def test_impossible_shapes(shape, build, node):
    with pytest.raises(BadModel, match="Reshape"):
        build([node("Reshape", "x c")], (2, 3, 4), {"c": ints(*shape)})


@pytest.mark.parametrize("opset", [9, 13])
def test_squeeze_and_unsqueeze(opset, agrees, node):
    def with_axes(op, *axes):
        if opset < 13:
            return node(op, "x", axes=axes or None), {}
        return node(op, "x c" if axes else "x"), {"c": ints(*axes)}

    for op, axes in [
        ("Squeeze", ()),
        ("Squeeze", (0, 2)),
        ("Squeeze", (2,)),
        ("Unsqueeze", (0, 3)),
        ("Unsqueeze", (1,)),
    ]:
        one, constants = with_axes(op, *axes)
        agrees([one], numbers(1, 3, 1, 2), constants, opset)


@given(SHAPES, st.data())
def test_concat_and_split(agrees, node, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    nodes = [node("Concat", "x c x", "z", axis=axis), node("Split", "z lengths", "a y", axis=axis)]
    whole = 3 * shape[axis]
    first = data.draw(st.integers(0, whole - 1))
    constants = {"c": numbers(*shape, seed=1), "lengths": ints(first, whole - first)}
    agrees(nodes, numbers(*shape), constants, 13)


@pytest.mark.parametrize(("opset", "extra"), [(7, {"split": [2, 3, 1]}), (7, {}), (13, {}), (18, {"num_outputs": 3})])
def test_splits_by_attribute(opset, extra, agrees, node):
    agrees([node("Split", "x", "a y b", axis=1, **extra)], numbers(2, 6), opset=opset)


def test_the_last_piece_may_be_smaller(agrees, node, build):
    agrees([node("Split", "x", "a b y", axis=0, num_outputs=3)], numbers(7), opset=18)
    with pytest.raises(BadModel, match="cannot split 7 into 3"):
        build([node("Split", "x", "a b y", axis=0)], (7,), opset=13)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_slice(agrees, node, build, shape, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    far = st.one_of(st.integers(-7, 7), st.sampled_from([-(2**63), -(2**31), 2**31 - 1, 2**63 - 1]))
    rows = [(data.draw(far), data.draw(far), data.draw(st.sampled_from([-2, -1, 1, 2, 3]))) for _ in axes]
    starts, ends, steps = (list(column) for column in zip(*rows, strict=True))
    index = [slice(None)] * len(shape)
    for (start, end, step), axis in zip(rows, axes, strict=True):
        index[axis] = slice(start, end, step)
    x = numbers(*shape)
    assume(x[tuple(index)].size)
    names = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "t": ints(*steps)}
    found = build([node("Slice", "x s e a t")], shape, names, opset=13)(x)
    np.testing.assert_array_equal(found, x[tuple(index)])
    if steps == [1] * len(axes):
        older = build([node("Slice", "x", starts=starts, ends=ends, axes=axes)], shape, opset=9)(x)
        np.testing.assert_array_equal(older, found)


def test_slices_stay_slices(build, node):
    names = {"s": ints(7), "e": ints(1), "a": ints(0), "t": ints(-2)}
    net = build([node("Slice", "x s e a t")], (9,), names, opset=13)
    text = str(jax.make_jaxpr(net)(numbers(9)))
    assert "gather" not in text and "dynamic" not in text


@settings(max_examples=10)
@given(SHAPES, st.data())
def test_gather(agrees, node, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    indices = st.integers(-shape[axis], shape[axis] - 1)
    many = np.array([[data.draw(indices) for _ in range(3)] for _ in range(2)], np.int64)
    for chosen in (many, many[0], many[0, 0]):
        agrees([node("Gather", "x c", axis=axis)], numbers(*shape), {"c": chosen}, 13)


def test_gather_outside(build, node):
    with pytest.raises(BadModel, match=r"Gather .*outside -3 \.\. 2"):
        build([node("Gather", "x c")], (3,), {"c": ints(3)})


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", [(0, 1, 2, 0), (1, 2, 1, 1), (-1, 1, 0, -1)])
def test_pad(mode, pads, build, node):
    x = numbers(4, 4)
    inner = x[max(-pads[0], 0) : 4 - max(-pads[2], 0), max(-pads[1], 0) : 4 - max(-pads[3], 0)]
    outer = [(max(pads[i], 0), max(pads[i + 2], 0)) for i in (0, 1)]
    extra = {"constant_values": 1.5} if mode == "constant" else {}
    expected = np.pad(inner, outer, mode, **extra)
    found = build([node("Pad", "x p v", mode=mode)], x.shape, {"p": ints(*pads), "v": np.float32(1.5)}, opset=19)(x)
    if min(pads) >= 0 or mode == "constant":  # what is cut off is still seen by the others, as positions go
        np.testing.assert_array_equal(found, expected)
    if mode != "wrap":
        older = build([node("Pad", "x", mode=mode, pads=pads, value=1.5)], x.shape, opset=7)(x)
        np.testing.assert_array_equal(older, found)


def test_pad_of_some_axes(agrees, node):
    names = {"p": ints(1, 0, 0, 2), "v": np.float32(0), "a": ints(2, -3)}
    agrees([node("Pad", "x p v a")], numbers(2, 3, 4), names, 18)


@pytest.mark.parametrize("shape", [(2, 2, 4), (1,), (3, 1, 1, 2), (2, 3, 4)])
def test_expand_and_tile(shape, agrees, node):
    agrees([node("Expand", "x c")], numbers(2, 1, 1), {"c": ints(*shape)}, 13)
    agrees([node("Tile", "x c")], numbers(2, 3), {"c": ints(len(shape), shape[0])}, 13)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_resize_nearest(transform, rounding, agrees, node):
    modes = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": transform}
    for scale in ((1.0, 1.0, 2.0, 3.0), (1.0, 1.0, 0.5, 1.5)):
        agrees([node("Resize", "x _ c", **modes)], numbers(1, 2, 4, 6), {"c": np.float32(scale)}, 13)
    agrees([node("Resize", "x _ _ c", **modes)], numbers(1, 1, 4, 4), {"c": ints(1, 1, 7, 3)}, 13)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
def test_older_resizes(op, opset, build, node):
    x, scales = numbers(1, 2, 3, 2), (1.0, 1.0, 2.0, 3.0)
    given_ = {} if opset == 7 else {"c": np.float32(scales)}
    one = node(op, "x", scales=scales) if opset == 7 else node(op, "x c", mode="nearest")
    np.testing.assert_array_equal(build([one], x.shape, given_, opset)(x), x.repeat(2, 2).repeat(3, 3))


def test_only_nearest(build, node):
    with pytest.raises(BadModel, match="attribute 'mode' is 'linear'; accepted: nearest"):
        build([node("Resize", "x _ c", mode="linear")], (1, 1, 2, 2), {"c": np.float32([1, 1, 2, 2])}, opset=13)
