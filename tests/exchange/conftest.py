"""Small ONNX files, and what onnx's own evaluator computes for them."""

import pathlib
import tempfile
from collections.abc import Callable

import jax
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from robustgen.exchange import OnnxNet, load_onnx


def model_of(nodes, shape, constants, opset, elem_type=onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """A model with input "x" of `shape`, output "y", and initializers."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("y", elem_type, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def load(model: onnx.ModelProto, folder: pathlib.Path | None = None) -> OnnxNet:
    """What a file of the model is read as."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = pathlib.Path(name) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return load_onnx(path)


@pytest.fixture(scope="session")
def build() -> Callable[..., OnnxNet]:
    """build(nodes, shape, constants, opset) -> the network."""

    def build(nodes, shape, constants=None, opset=17) -> OnnxNet:
        return load(model_of(nodes, shape, constants or {}, opset))

    return build


@pytest.fixture
def save(tmp_path) -> Callable[..., pathlib.Path]:
    """save(nodes, shape, constants, opset) -> the path of a file with them."""

    def save(nodes, shape, constants=None, opset=17, folder=tmp_path) -> pathlib.Path:
        path = folder / "model.onnx"
        path.write_bytes(model_of(nodes, shape, constants or {}, opset).SerializeToString())
        return path

    return save


@pytest.fixture(scope="session")
def agrees() -> Callable[..., np.ndarray]:
    """agrees(nodes, x, constants, opset): raises unless the network does what onnx's evaluator does; returns that."""

    def agrees(nodes, x, constants=None, opset=17, tolerance=1e-5) -> np.ndarray:
        model = model_of(nodes, x.shape, constants or {}, opset)
        with np.errstate(all="ignore"):
            expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
        net = load(model)
        found = np.asarray(jax.jit(net)(x))
        assert found.shape == expected.shape == net.output_shape
        np.testing.assert_allclose(found, expected, tolerance, tolerance * (1 + np.nanmax(np.abs(expected), initial=0)))
        return expected

    return agrees


@pytest.fixture(scope="session")
def node() -> Callable[..., onnx.NodeProto]:
    """node("Relu", "x", "y", attribute=..): an operator; inputs and outputs separated by spaces, "_" for none."""

    def node(op, inputs, outputs="y", **attributes) -> onnx.NodeProto:
        names = ([("" if name == "_" else name) for name in text.split()] for text in (inputs, outputs))
        return helper.make_node(op, *names, **{key: v for key, v in attributes.items() if v is not None})

    return node
