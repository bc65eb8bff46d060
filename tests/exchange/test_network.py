"""Whole files: the competition's networks, what is folded, what the function is like, and what is refused."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from robustgen import threats
from robustgen.certify import margins_lower
from robustgen.exchange import BadModel, load_onnx, load_vnnlib

FILES = ["mnist-net_256x2", "test_nano", "test_tiny", "test_small", "test_sat", "test_unsat"]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("name", FILES)
def test_competition_files(name, shared):
    path = shared / "reference" / "certify" / "vnncomp" / f"{name}.onnx"
    net, evaluator = load_onnx(path), ReferenceEvaluator(onnx.load(path))
    stored = {tensor.name for tensor in onnx.load(path).graph.initializer}
    (given,) = (value.name for value in onnx.load(path).graph.input if value.name not in stored)
    for seed in range(3):
        x = numbers(*net.input_shape, seed=seed)
        np.testing.assert_allclose(net(x), evaluator.run(None, {given: x})[0], 1e-5, 1e-5)


def test_against_the_weights_apart(shared):
    """The same network written down as arrays and a list of layers, computed in float64."""
    folder = shared / "reference" / "certify"
    net = load_onnx(folder / "vnncomp" / "mnist-net_256x2.onnx")
    weights, nodes = (
        np.load(folder / "mnistfc_256x2_weights.npz"),
        json.loads((folder / "mnistfc_256x2_s1.json").read_text()),
    )
    x = np.random.default_rng(0).random(784)
    expected = x
    for layer in nodes["nodes"]:
        if layer["op"] == "dense":
            expected = weights[layer["w"]].astype(np.float64) @ expected + weights[layer["b"]]
        elif layer["op"] == "relu":
            expected = np.maximum(expected, 0)
    np.testing.assert_allclose(net.flat(np.float32(x)), expected, 1e-5, 1e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(net.flat(jnp.asarray(x)), expected, 1e-12)


def test_bounds_of_the_file_are_the_published_ones(shared):
    """IBP of the imported network over the boxes of the imported properties: auto_LiRPA's, in float64."""
    folder = shared / "reference" / "certify"
    arrays = np.load(folder / "mnistfc_256x2_s1.npz")
    expected, y = arrays["ibp64"][:5], arrays["labels"][:5].astype(np.int32)
    files = [folder / "vnncomp" / f"prop_{i}_0.03.vnnlib" for i in range(5)]
    boxes = [load_vnnlib(file).boxes[0] for file in files]
    net = load_onnx(folder / "vnncomp" / "mnist-net_256x2.onnx")
    low, high = (jnp.asarray(np.stack([box[i] for box in boxes]), jnp.float32) for i in (0, 1))
    margins = np.asarray(margins_lower(jax.vmap(net.flat), low, jnp.asarray(y), threats.box(low, high)))
    ours = np.stack([np.delete(row, label) for row, label in zip(margins, y, strict=True)])
    np.testing.assert_allclose(ours, expected, 1e-5, 1e-4)


def test_the_function_is_plain_jax(build, node):
    net = build([node("Conv", "x w", "h"), node("Relu", "h")], [1, 2, 4, 4], {"w": numbers(3, 2, 3, 3)})
    x = numbers(1, 2, 4, 4)
    assert (net.input_shape, net.output_shape) == ((1, 2, 4, 4), (1, 3, 2, 2))
    np.testing.assert_allclose(jax.jit(net)(x), net(x), 1e-6, 1e-6)
    np.testing.assert_allclose(net.flat(x.reshape(-1)), np.reshape(net(x), -1))
    batch = np.stack([x.reshape(-1), 2 * x.reshape(-1)])
    np.testing.assert_allclose(jax.vmap(net.flat)(batch)[1], net.flat(batch[1]), 1e-5, 1e-5)
    slope = jax.grad(lambda x: jnp.sum(net(x)))(jnp.asarray(x))
    step = 1e-2 * numbers(1, 2, 4, 4, seed=1)
    with jax.numpy_rank_promotion("raise"):
        np.testing.assert_allclose(np.sum(net(x + 0 * step)), np.sum(net(x)))
    assert slope.shape == x.shape and np.any(slope)
    with pytest.raises(ValueError, match=r"floating point of shape \(1, 2, 4, 4\), not float32 of shape \(32,\)"):
        net(x.reshape(-1))
    with pytest.raises(ValueError, match="not int32"):
        net(np.zeros((1, 2, 4, 4), np.int32))


def test_half_precision_stays_in_its_type(build, node):
    net = build([node("Gemm", "x w")], [1, 3], {"w": numbers(3, 2).astype(np.float16)})
    assert net(jnp.ones((1, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    assert net(jnp.ones((1, 3))).dtype == jnp.float32


def test_shapes_are_folded(build, node):
    """What exporters write for x.reshape(x.shape[0], -1): nothing of it is left but one reshape."""
    nodes = [node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Unsqueeze", "n first", "m")]
    nodes += [node("Concat", "m minus", "r", axis=0), node("Cast", "r", "c", to=6), node("Cast", "c", "t", to=7)]
    nodes += [node("Reshape", "x t")]
    net = build(nodes, [2, 3, 4], {"zero": np.int64(0), "first": ints(0), "minus": ints(-1)}, 13)
    assert net.output_shape == (2, 12)
    equations = jax.make_jaxpr(net)(numbers(2, 3, 4)).eqns
    assert [equation.primitive.name for equation in equations] == ["reshape"]


def test_folded_arithmetic(agrees, node):
    constant = node("Constant", "", "a", value=numpy_helper.from_array(np.float32([[1, 2], [3, 4]])))
    nodes = [
        constant,
        node("Transpose", "a", "t"),
        node("Mul", "t t", "s"),
        node("ReduceSum", "s one", "r", keepdims=0),
    ]
    nodes += [node("Range", "i0 i6 i2", "q"), node("Div", "q i4", "d"), node("Cast", "d", "f", to=1)]
    nodes += [node("Slice", "f one three", "g"), node("Add", "x r", "z"), node("Sub", "z g")]
    names = {
        "one": ints(1),
        "three": ints(3),
        "i0": np.int64(-6),
        "i6": np.int64(3),
        "i2": np.int64(3),
        "i4": np.int64(4),
    }
    agrees(nodes, numbers(3, 2), names, 13)


def test_parts_that_the_output_does_not_need_are_not_looked_at(build, node):
    net = build([node("Relu", "x"), node("Unheard", "x", "other")], [2])
    np.testing.assert_array_equal(net(np.float32([-1, 1])), [0, 1])


def test_an_open_batch_is_one(node, save):
    path = save([node("Relu", "x")], ["N", 3])
    assert load_onnx(path).input_shape == (1, 3)
    assert load_onnx(path, input_shape=(4, 3)).output_shape == (4, 3)
    with pytest.raises(BadModel, match=r"shape \['open', 3\]; input_shape=\[4, 4\] does not fit"):
        load_onnx(path, input_shape=(4, 4))
    with pytest.raises(BadModel, match=r"has shape \[1, 'open'\]: say which as input_shape="):
        load_onnx(save([node("Relu", "x")], [1, "width"]))


def test_gzipped(tmp_path, node, save):
    path = save([node("Relu", "x")], [3])
    (tmp_path / "model.onnx.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load_onnx(tmp_path / "model.onnx.gz").input_shape == (3,)
