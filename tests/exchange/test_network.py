"""Whole files: the competition's networks, what is folded, what the function is like, and what is refused."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from robustgen import threats
from robustgen.certify import margins_lower
from robustgen.exchange import BadModel, limits, load_onnx, load_vnnlib

FILES = ["mnist-net_256x2", "test_nano", "test_tiny", "test_small", "test_sat", "test_unsat"]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def saved(folder, nodes, shape, constants=None, opset=17, name="model.onnx"):
    """A file with input "x" and output "y"."""
    stored = [numpy_helper.from_array(np.asarray(array), key) for key, array in (constants or {}).items()]
    x, y = (helper.make_tensor_value_info(key, 1, sizes) for key, sizes in (("x", shape), ("y", None)))
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=opsets)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


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


def test_an_open_batch_is_one(tmp_path, node):
    path = saved(tmp_path, [node("Relu", "x")], ["N", 3])
    assert load_onnx(path).input_shape == (1, 3)
    assert load_onnx(path, input_shape=(4, 3)).output_shape == (4, 3)
    with pytest.raises(BadModel, match=r"shape \['open', 3\]; input_shape=\[4, 4\] does not fit"):
        load_onnx(path, input_shape=(4, 4))
    with pytest.raises(BadModel, match=r"has shape \[1, 'open'\]: say which as input_shape="):
        load_onnx(saved(tmp_path, [node("Relu", "x")], [1, "width"]))


def test_gzipped(tmp_path, node):
    path = saved(tmp_path, [node("Relu", "x")], [3])
    (tmp_path / "model.onnx.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load_onnx(tmp_path / "model.onnx.gz").input_shape == (3,)


@pytest.mark.parametrize("field", ["float_data", "double_data", "int32_data", "raw"])
def test_every_place_for_numbers(field, tmp_path, node):
    types = {"float_data": (1, np.float32), "double_data": (11, np.float64), "int32_data": (10, np.float16)}
    kind, dtype = types.get(field, (1, np.float32))
    values = np.array([1.5, -2.0, 0.25], dtype)
    tensor = onnx.TensorProto(name="c", data_type=kind, dims=[3])
    if field == "raw":
        tensor.raw_data = values.tobytes()
    else:
        getattr(tensor, field).extend(values.view(np.uint16) if field == "int32_data" else values)
    path = saved(tmp_path, [node("Add", "x c")], [3])
    model = onnx.load(path)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(load_onnx(path)(np.zeros(3, np.float32)), values)


def external(tmp_path, node, **entries):
    """A file whose weights lie outside, and where."""
    path = saved(tmp_path, [node("Add", "x c")], [3], {"c": numbers(3)})
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path, node):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "weights").write_bytes(b"1234" + numbers(3).tobytes())
    path = external(tmp_path, node, location="inner/weights", offset="4", length="12")
    np.testing.assert_array_equal(load_onnx(path)(np.zeros(3, np.float32)), numbers(3))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "../weights"}, "not in the model's folder"),
        ({"location": "/etc/passwd"}, "not in the model's folder"),
        ({"location": "link"}, "not in the model's folder"),
        ({}, "not in the model's folder"),
        ({"location": "absent"}, "which are not there"),
        ({"location": "weights", "offset": "8"}, "which are not there"),
        ({"location": "weights", "offset": "-4"}, "offset '-4'"),
        ({"location": "weights", "length": "4"}, "its shape needs 12"),
    ],
)
def test_external_data_from_elsewhere(entries, words, tmp_path, node):
    folder = tmp_path / "models"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "weights").write_bytes(numbers(3).tobytes())
    (folder / "link").symlink_to(tmp_path / "weights")
    with pytest.raises(BadModel, match=f"initializer 'c' .*{words}"):
        load_onnx(external(folder, node, **entries))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Loop", "x", "y")], r"Loop \(-> y\): operator is not supported; supported are Abs Add"),
        ([("Relu", "z", "y")], "its input 'z' is not defined before it"),
        ([("Relu", "x", "y"), ("Neg", "x", "y")], "its output 'y' is defined twice"),
        ([("Relu", "x", "z")], "its output 'y' is not computed by any node"),
        ([("Relu", "c", "y")], "output 'y' is not computed from the input"),
        ([("Add", "x c c", "y")], "takes 2 to 2 inputs; it has 3"),
        ([("Add", "x", "y")], "takes 2 to 2 inputs; it has 1"),
        ([("Add", "x d", "y")], "cannot be computed: .*shapes"),
        ([("Add", "x i", "y")], "an integer tensor among inputs of floating point"),
        ([("Gather", "c x", "y")], "input 'x' depends on the network's input; only constants"),
        ([("Shape", "x", "y")], "output 'y' is not computed from the input"),
        ([("ConstantOfShape", "h", "z"), ("Add", "x z", "y")], "makes a tensor of shape .*at most"),
        ([("ConstantOfShape", "k", "z"), ("Expand", "z h", "w"), ("Add", "x w", "y")], "makes a tensor of shape"),
        ([("Expand", "x h", "y")], "makes a tensor of shape"),
    ],
)
def test_refused(nodes, words, tmp_path, node):
    constants = {"c": numbers(3), "d": numbers(4), "i": ints(1, 2, 3), "h": ints(2**20, 2**20, 1), "k": ints(1, 1, 1)}
    path = saved(tmp_path, [node(*each) for each in nodes], [3], constants)
    with pytest.raises(BadModel, match=words) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value) and caught.value.path == str(path)


def test_files_that_are_none(tmp_path, node):
    path = tmp_path / "model.onnx"
    with pytest.raises(BadModel, match="no such file"):
        load_onnx(path)
    with pytest.raises(BadModel, match="is a folder"):
        load_onnx(tmp_path)
    for content in (b"\x80\x04\x95pickle", b"\x1f\x8bbroken", b"<html>", b""):
        path.write_bytes(content)
        with pytest.raises(BadModel, match="damaged|cannot be read|opset none"):
            load_onnx(path)
    with pytest.raises(BadModel, match="has opset 6; 7 to 22 are supported"):
        load_onnx(saved(tmp_path, [node("Relu", "x")], [3], opset=6))


def test_names_that_are_no_text(tmp_path, node):
    path = saved(tmp_path, [node("Relu", "x", "middle"), node("Neg", "middle")], [3])
    path.write_bytes(path.read_bytes().replace(b"middle", b"midd\xff\xfe"))
    with pytest.raises(BadModel, match="has a name that is no UTF-8 text"):
        load_onnx(path)


def test_a_gzip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MODEL_BYTES", 10**6)
    (tmp_path / "model.onnx").write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(BadModel, match="has more than 1000000 bytes decompressed"):
        load_onnx(tmp_path / "model.onnx")
