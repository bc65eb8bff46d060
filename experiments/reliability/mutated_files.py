"""Reads mutated ONNX and VNN-LIB files: each must be read, or refused with an `ExchangeError`, and in bounded time.

    python experiments/reliability/mutated_files.py --inputs=100000

Good files of about 30 operators and all forms of constraints are changed at random: bits flipped, cut short, two files
joined, words swapped, doubled or dropped; in protobuf's structure also sizes, types, attributes, names, operators and
opsets. Every 20th network that is accepted is computed once as well. Workers are processes, so that a crash is counted.
"""

import collections
import concurrent.futures
import multiprocessing
import pathlib
import random
import resource
import signal
import tempfile

import jax.numpy as jnp
import numpy as np
import onnx
from absl import app, flags, logging
from onnx import helper, numpy_helper

from robustgen import log
from robustgen.exchange import ExchangeError, load_onnx, load_vnnlib

_INPUTS = flags.DEFINE_integer("inputs", 100_000, "Mutated files of each kind.", lower_bound=1)
_KINDS = flags.DEFINE_list("kinds", [".vnnlib", ".onnx"], "Kinds of files.")
_SEED = flags.DEFINE_integer("seed", 0, "Draws the mutations.")
_SECONDS = flags.DEFINE_integer("seconds", 10, "The most that one file may take.", lower_bound=1)
_CHUNK = 5000  # inputs for each worker process

_PROPERTIES = [
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


class _TooLong(BaseException):
    """The time for one file is over; no `except Exception` stops it."""


def _alarm(*_) -> None:
    raise _TooLong


def outcome(path: pathlib.Path, number: int, seconds: int) -> str:
    """What reading one file comes to."""
    signal.alarm(seconds)
    try:
        if path.suffix == ".vnnlib":
            load_vnnlib(path)
            return "read"
        net = load_onnx(path)
        if number % 20 == 0:
            np.asarray(net(jnp.zeros(net.input_shape)))
            return "read and computed"
        return "read"
    except ExchangeError:
        return "refused"
    except _TooLong:
        return f"OVER {seconds} s"
    except BaseException as error:  # whatever it is, it is counted, and shown
        return f"OTHER {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def work(suffix: str, first: int, count: int, seed: int, seconds: int) -> tuple[collections.Counter, int]:
    """Reads inputs number `first` and on; returns how often each outcome was, and the most memory used, in KiB."""
    signal.signal(signal.SIGALRM, _alarm)
    files = networks() if suffix == ".onnx" else [text.encode() for text in _PROPERTIES]
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"file{suffix}"
        for number in range(first, first + count):
            draw = random.Random(f"{seed} {suffix} {number}")
            good, other = draw.choice(files), draw.choice(files)
            by_meaning = in_structure if suffix == ".onnx" else in_words
            path.write_bytes(by_meaning(draw, good) if draw.random() < 0.6 else in_bytes(draw, good, other))
            counts[outcome(path, number, seconds)] += 1
    return counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(_: list[str]) -> None:
    """Prints the counts."""
    logging.set_verbosity(logging.ERROR)
    log.hush()
    for suffix in _KINDS.value:
        counts, most = collections.Counter(), 0
        for first in range(0, _INPUTS.value, _CHUNK):
            count = min(_CHUNK, _INPUTS.value - first)
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                try:
                    found, memory = pool.submit(work, suffix, first, count, _SEED.value, _SECONDS.value).result()
                except concurrent.futures.process.BrokenProcessPool:
                    found, memory = {f"CRASH within inputs {first} to {first + count - 1}": 1}, 0
            counts.update(found)
            most = max(most, memory)
            logging.error("%s: %d of %d: %s", suffix, first + count, _INPUTS.value, dict(counts))  # progress, to stderr
        for what, many in counts.most_common():
            log.say(f"{suffix:8} {many:7}  {what}")
        log.say(f"{suffix:8} at most {most / 2**20:.1f} GiB of memory in a process")


if __name__ == "__main__":
    app.run(main)
