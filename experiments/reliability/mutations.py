"""Good ONNX and VNN-LIB files, and how `mutated_files.py` changes them."""

import random

import numpy as np
import onnx
from onnx import helper, numpy_helper

PROPERTIES = [
    "; a box\n(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
    + text
    for text in (
        "(assert (<= X_0 0.5))(assert (>= X_0 -1e-3))(assert (<= X_1 1))(assert (>= X_1 -1))(assert (<= Y_0 Y_1))",
        "(assert (or (and (<= X_0 1) (>= X_0 0) (<= X_1 1) (>= X_1 0) (>= Y_0 3.5))\n"
        "  (and (<= X_0 3) (>= X_0 2) (<= X_1 1) (>= X_1 0) (or (<= Y_0 (+ Y_1 (* 2 X_0) -1)) (>= (- Y_0 Y_1) 0.1)))))",
        "(assert (and (<= X_0 1) (>= X_0 0) (<= X_1 1) (>= X_1 0)))\n(assert (or (<= Y_0 0) (>= Y_1 (* 0.5 Y_0))))\n"
        "(assert (or (<= (+ X_0 X_1) 1) (>= (- Y_0) -7)))",
    )
]
_EXTREMES = [
    "0",
    "-1",
    "1e999",
    "1e-400",
    "nan",
    "99999999999",
    "X_99999999",
    "X_1",
    "Y_0",
    "(",
    ")",
    "or",
    "and",
    "((",
]
_SIZES = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**16, 2**24, 2**31, 2**40, 2**63 - 1]


def networks() -> list[bytes]:
    """Good files of small networks."""
    draw = np.random.default_rng(0)
    w = {name: draw.normal(size=shape).astype(np.float32) for name, shape in _WEIGHTS.items()}
    return [_network(lines, shape, w, opset) for lines, shape, opset in _NETWORKS]


_WEIGHTS = {"k": (4, 2, 3, 3), "c": (4,), "g": (3, 64), "b": (3,), "t": (4, 2, 2, 2), "m": (4, 4)}
_INTEGERS = {"two": [2], "axes": [1, 2], "shape": [1, -1], "pads": [0, 0, 1, 1, 0, 0, 1, 1], "one": [1], "zero": [0]}
_NETWORKS = [
    (
        [
            ("Conv", "x k c", "1", {"pads": [1, 1, 1, 1], "group": 1}),
            ("BatchNormalization", "1 c c c v", "2", {"epsilon": 1e-3}),
            ("Relu", "2", "3", {}),
            ("MaxPool", "3", "4", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
            ("AveragePool", "4", "5", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
            ("Flatten", "5", "6", {"axis": 1}),
            ("Gemm", "6 g b", "y", {"transB": 1, "alpha": 0.5}),
        ],
        (1, 2, 8, 8),
        11,
    ),
    (
        [
            ("Shape", "x", "s", {}),
            ("Gather", "s zero", "n", {}),
            ("Concat", "n minus", "r", {"axis": 0}),
            ("Reshape", "x r", "1", {}),
            ("Reshape", "1 square", "2", {}),
            ("MatMul", "2 m", "3", {}),
            ("Transpose", "3", "4", {"perm": [0, 2, 1]}),
            ("MatMul", "3 4", "5", {}),
            ("Softmax", "5", "6", {"axis": -1}),
            ("LayerNormalization", "6 c c", "7", {"axis": -1}),
            ("Slice", "7 zero two one", "8", {}),
            ("Split", "8", "9 10", {"axis": 1}),
            ("ReduceMean", "9", "11", {"axes": [1], "keepdims": 0}),
            ("Clip", "11 low", "12", {}),
            ("Pow", "12 square_of", "y", {}),
        ],
        (1, 16),
        17,
    ),
    (
        [
            ("ConvTranspose", "x t", "1", {"strides": [2, 2]}),
            ("Resize", "1 _ scales", "2", {"mode": "nearest"}),
            ("Pad", "2 pads", "3", {"mode": "reflect"}),
            ("LeakyRelu", "3", "4", {"alpha": 0.1}),
            ("ConstantOfShape", "two", "5", {}),
            ("Expand", "5 two", "6", {}),
            ("ReduceMax", "4", "7", {"axes": [2, 3], "keepdims": 0}),
            ("Concat", "7 7", "8", {"axis": 1}),
            ("Unsqueeze", "8 one", "9", {}),
            ("Tile", "9 tiles", "10", {}),
            ("ReduceSum", "10 one", "11", {"keepdims": 0}),
            ("Add", "11 low", "y", {}),
        ],
        (1, 4, 3, 3),
        13,
    ),
]
_MORE = {"v": np.ones(4, np.float32), "low": np.float32(-1), "square_of": np.float32(2)}
_MORE |= {"scales": np.float32([1, 1, 2, 1.5]), "minus": np.int64([-1]), "square": np.int64([1, 4, 4])}
_MORE |= {"tiles": np.int64([1, 2, 1])}


def _network(lines, shape, weights, opset) -> bytes:
    nodes = [
        helper.make_node(op, ["" if name == "_" else name for name in inputs.split()], outputs.split(), **attributes)
        for op, inputs, outputs, attributes in lines
    ]
    arrays = {**weights, **{name: np.int64(values) for name, values in _INTEGERS.items()}, **_MORE}
    used = {name for node in nodes for name in node.input}
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items() if name in used]
    x, y = (helper.make_tensor_value_info(name, 1, sizes) for name, sizes in (("x", shape), ("y", None)))
    graph = helper.make_graph(nodes, "graph", [x], [y], stored)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def in_bytes(draw: random.Random, good: bytes, other: bytes) -> bytes:
    """Bits flipped, cut short, two files joined, or a piece doubled, dropped or moved."""
    changed, at = bytearray(good), draw.randrange(len(good))
    kind = draw.randrange(5)
    if kind == 0:
        for _ in range(draw.choice([1, 1, 2, 8, 64])):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        changed[at:] = other[draw.randrange(len(other)) :]
    elif kind == 3:
        changed[at:at] = changed[at : at + draw.randrange(200)] * draw.choice([1, 2, 50])
    else:
        del changed[at : at + draw.randrange(1, 100)]
    return bytes(changed)


def in_words(draw: random.Random, good: bytes) -> bytes:
    """Words swapped, doubled, dropped, repeated often, or put in place of others."""
    words = good.decode().replace("(", " ( ").replace(")", " ) ").split(" ")
    for _ in range(draw.choice([1, 1, 1, 5])):
        i, j = draw.randrange(len(words)), draw.randrange(len(words))
        kind = draw.randrange(5)
        if kind == 0:
            words[i], words[j] = words[j], words[i]
        elif kind == 1:
            words[i:i] = words[min(i, j) : max(i, j)]
        elif kind == 2:
            del words[i : i + draw.choice([1, 1, 10])]
            words = words or [""]
        elif kind == 3:
            words[i] = draw.choice(_EXTREMES)
        else:
            words[i:i] = [words[j]] * draw.choice([2, 300])
    return " ".join(words).encode()


def in_structure(draw: random.Random, good: bytes) -> bytes:
    """A network of valid protobuf with some fields of another value."""
    model = onnx.ModelProto.FromString(good)
    for _ in range(draw.choice([1, 1, 2, 4])):
        draw.choice([_tensor, _attribute, _wiring, _nodes, _header])(draw, model)
    return model.SerializeToString()


def _tensor(draw: random.Random, model: onnx.ModelProto) -> None:
    tensor = draw.choice(model.graph.initializer)
    kind = draw.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(_SIZES)
    elif kind == 1:
        tensor.data_type = draw.randrange(20)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
    elif kind == 3 and tensor.data_type == 7:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = np.array([draw.choice(_SIZES) for _ in range(count)], np.int64).tobytes()
    else:
        tensor.dims.append(draw.choice(_SIZES))


def _attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    node = draw.choice(model.graph.node)
    if not node.attribute:
        node.attribute.append(helper.make_attribute(draw.choice(["axis", "to", "group", "axes"]), draw.choice(_SIZES)))
        return
    attribute = draw.choice(node.attribute)
    kind = draw.randrange(5)
    if kind == 0:
        attribute.name = draw.choice(["axis", "pads", "strides", "alpha", "dilations", "kernel_shape", "perm", "mode"])
    elif kind == 1:
        attribute.type = draw.randrange(12)
    elif kind == 2:
        attribute.i, attribute.f = draw.choice(_SIZES), draw.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
    elif kind == 3 and attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_SIZES)
    else:
        attribute.ints.extend([draw.choice(_SIZES)] * draw.choice([1, 1, 100]))


def _wiring(draw: random.Random, model: onnx.ModelProto) -> None:
    node = draw.choice(model.graph.node)
    names = ["", *(t.name for t in model.graph.initializer), *(name for n in model.graph.node for name in n.output)]
    where = draw.choice([node.input, node.input, node.output])
    if where and draw.random() < 0.7:
        where[draw.randrange(len(where))] = draw.choice(names)
    else:
        where.append(draw.choice(names))


def _nodes(draw: random.Random, model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    node, kind = draw.choice(nodes), draw.randrange(4)
    if kind == 0:
        node.op_type = draw.choice([n.op_type for n in nodes] + ["Loop", "Relu", "Range", "Resize", "Where", "Dropout"])
    elif kind == 1 and len(nodes) > 1:
        nodes.remove(node)
    elif kind == 2:
        nodes.insert(draw.randrange(len(nodes)), node)
    else:
        node.domain = draw.choice(["", "ai.onnx", "com.microsoft"])


def _header(draw: random.Random, model: onnx.ModelProto) -> None:
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    kind = draw.randrange(3)
    if kind == 0:
        model.opset_import[0].version = draw.randrange(30)
    elif kind == 1 and sizes:
        sizes[draw.randrange(len(sizes))].dim_value = draw.choice(_SIZES)
    else:
        model.graph.output[0].name = draw.choice([name for n in model.graph.node for name in n.output] + ["x"])
