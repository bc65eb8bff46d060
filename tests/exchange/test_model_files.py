"""Where a file's numbers lie, what is read from outside it, and files that are refused."""

import functools
import gzip

import numpy as np
import onnx
import pytest

from robustgen.exchange import BadModel, limits, load_onnx


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("field", ["float_data", "double_data", "int32_data", "raw"])
def test_every_place_for_numbers(field, node, save):
    types = {"float_data": (1, np.float32), "double_data": (11, np.float64), "int32_data": (10, np.float16)}
    kind, dtype = types.get(field, (1, np.float32))
    values = np.array([1.5, -2.0, 0.25], dtype)
    tensor = onnx.TensorProto(name="c", data_type=kind, dims=[3])
    if field == "raw":
        tensor.raw_data = values.tobytes()
    else:
        getattr(tensor, field).extend(values.view(np.uint16) if field == "int32_data" else values)
    path = save([node("Add", "x c")], [3])
    model = onnx.load(path)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(load_onnx(path)(np.zeros(3, np.float32)), values)


def external(save, node, **entries):
    """A file whose weights lie outside, and where."""
    path = save([node("Add", "x c")], [3], {"c": numbers(3)})
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path, node, save):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "weights").write_bytes(b"1234" + numbers(3).tobytes())
    path = external(save, node, location="inner/weights", offset="4", length="12")
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
def test_external_data_from_elsewhere(entries, words, tmp_path, node, save):
    folder = tmp_path / "models"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "weights").write_bytes(numbers(3).tobytes())
    (folder / "link").symlink_to(tmp_path / "weights")
    with pytest.raises(BadModel, match=f"initializer 'c' .*{words}"):
        load_onnx(external(functools.partial(save, folder=folder), node, **entries))


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
def test_refused(nodes, words, node, save):
    constants = {"c": numbers(3), "d": numbers(4), "i": ints(1, 2, 3), "h": ints(2**20, 2**20, 1), "k": ints(1, 1, 1)}
    path = save([node(*each) for each in nodes], [3], constants)
    with pytest.raises(BadModel, match=words) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value) and caught.value.path == str(path)


def test_files_that_are_none(tmp_path, node, save):
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
        load_onnx(save([node("Relu", "x")], [3], opset=6))


def test_names_that_are_no_text(node, save):
    path = save([node("Relu", "x", "middle"), node("Neg", "middle")], [3])
    path.write_bytes(path.read_bytes().replace(b"middle", b"midd\xff\xfe"))
    with pytest.raises(BadModel, match="has a name that is no UTF-8 text"):
        load_onnx(path)


def test_a_gzip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MODEL_BYTES", 10**6)
    (tmp_path / "model.onnx").write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(BadModel, match="has more than 1000000 bytes decompressed"):
        load_onnx(tmp_path / "model.onnx")
