"""An ONNX file's graph as plain tuples, checked: one input, one output, every value defined once and before its use."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from robustgen.exchange import limits
from robustgen.exchange.errors import BadModel
from robustgen.exchange.reading import Unreadable, read_bytes
from robustgen.exchange.tensors import BadTensor, array, dtype_of, shape_of

OPSETS = range(7, 23)

_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 6, 7, 8  # AttributeProto.AttributeType


class Node(NamedTuple):
    """One operator: names of its inputs and outputs ("" for one left out), and its attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}" if self.name else f"{self.op} (-> {', '.join(self.outputs)})"


class Graph(NamedTuple):
    """What a file computes. `input_shape` has None where the file leaves a size open; None: the whole shape is."""

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    input: str
    input_shape: tuple[int | None, ...] | None
    output: str


def read_graph(path: str | os.PathLike) -> Graph:
    """The graph in an ONNX file, gzipped or not. Raises `BadModel`."""
    path = pathlib.Path(path)
    model = _parse(path)
    fail: Fail = lambda reason: BadModel(path, reason)  # noqa: E731
    graph = model.graph
    opset = _opset(model, fail)
    if len(graph.node) > limits.NODES:
        raise fail(f"has {len(graph.node)} nodes, more than {limits.NODES}")
    if graph.sparse_initializer or model.functions:
        raise fail("has sparse initializers or functions of its own, which are not supported")
    _expect_text(fail, graph)
    constants = {t.name: _named(fail, f"initializer {t.name!r}", array, t, path.parent) for t in graph.initializer}
    if len(constants) != len(graph.initializer):
        raise fail("has two initializers of one name")
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        names = [value.name for value in (*inputs, *graph.output)]
        raise fail(f"has {len(inputs)} inputs and {len(graph.output)} outputs ({names[:6]}); one of each is supported")
    nodes = tuple(_node(fail, node, path.parent) for node in graph.node)
    needed = _needed(fail, nodes, {inputs[0].name, *constants}, graph.output[0].name)
    shape = _named(fail, f"input {inputs[0].name!r}", _input_shape, inputs[0])
    return Graph(opset, needed, constants, inputs[0].name, shape, graph.output[0].name)


Fail = Callable[[str], BadModel]


def _parse(path: pathlib.Path) -> Any:
    """The ModelProto in a file."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise BadModel(path, "needs the package onnx: python -m pip install 'robustgen[onnx]'") from error
    try:
        return onnx.ModelProto.FromString(read_bytes(path, limits.MODEL_BYTES))
    except Unreadable as error:
        raise BadModel(path, str(error)) from error
    except DecodeError as error:
        raise BadModel(path, f"is damaged, or no ONNX file ({error})") from error


def _expect_text(fail: Fail, graph: Any) -> None:
    """Names that are no UTF-8 text come out of protobuf as bytes."""
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.op_type, node.name, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise fail(f"has a name that is no UTF-8 text: {wrong[0][:40]!r}")


def _opset(model: Any, fail: Fail) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise fail(f"has opset {opset or 'none'}; {OPSETS[0]} to {OPSETS[-1]} are supported")
    return opset


def _named(fail: Fail, what: str, fn: Callable, *args: Any) -> Any:
    """fn(*args), its `BadTensor` as a `BadModel` that says what the tensor is."""
    try:
        return fn(*args)
    except BadTensor as error:
        raise fail(f"{what} {error}") from error


def _node(fail: Fail, node: Any, folder: pathlib.Path) -> Node:
    bare = Node(node.op_type, node.name, tuple(node.input), tuple(node.output), {})
    if node.domain not in ("", "ai.onnx"):
        raise fail(f"{bare}: its domain {node.domain!r} is not supported, only ONNX's own")
    values = {a.name: _named(fail, f"{bare}: attribute {a.name!r}", _attribute, a, folder) for a in node.attribute}
    if len(values) != len(node.attribute):
        raise fail(f"{bare}: has an attribute twice")
    return bare._replace(attributes=values)


def _attribute(attribute: Any, folder: pathlib.Path) -> Any:
    kind = attribute.type
    if attribute.ref_attr_name:
        raise BadTensor("refers to a function's attribute")
    if kind in (_FLOAT, _INT):
        return attribute.f if kind == _FLOAT else attribute.i
    if kind == _STRING:
        return attribute.s.decode(errors="replace")
    if kind == _TENSOR:
        return array(attribute.t, folder)
    if kind in (_FLOATS, _INTS):
        return tuple(attribute.floats if kind == _FLOATS else attribute.ints)
    if kind == _STRINGS:
        return tuple(text.decode(errors="replace") for text in attribute.strings)
    raise BadTensor("is neither a number, text, tensor nor list of numbers")


def _input_shape(value: Any) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not np.issubdtype(dtype_of(tensor.elem_type), np.floating):
        raise BadTensor(f"is of type {dtype_of(tensor.elem_type)}, not floating point")
    if not tensor.HasField("shape"):
        return None
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    shape_of(size or 1 for size in sizes)
    return tuple(sizes)


def _needed(fail: Fail, nodes: Sequence[Node], defined: set[str], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on, in order. Every value must be defined once, and before it is used."""
    known = {"", *defined}
    for node in nodes:
        if unknown := [name for name in node.inputs if name not in known]:
            raise fail(f"{node}: its input {unknown[0]!r} is not defined before it")
        results = [name for name in node.outputs if name]
        if twice := [name for name in results if name in known or results.count(name) > 1]:
            raise fail(f"{node}: its output {twice[0]!r} is defined twice")
        known.update(results)
    if output not in known or not output:
        raise fail(f"its output {output!r} is not computed by any node")
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(filter(None, node.outputs)):
            wanted.update(filter(None, node.inputs))
            kept.append(node)
    return tuple(reversed(kept))
