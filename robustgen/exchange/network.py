"""ONNX files as plain JAX functions: weights closed over, constants folded, the operators' standard primitives."""

import dataclasses
import functools
import itertools
import os
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array
from robustgen.exchange import limits
from robustgen.exchange.errors import BadModel
from robustgen.exchange.graph import Graph, Node, read_graph
from robustgen.exchange.ops import OPS, Call, Op, OpError
from robustgen.exchange.ops.call import expect_inputs, expect_size


@dataclasses.dataclass(frozen=True, eq=False)  # no tuple: `jax.jit` keeps weak references to what it compiles
class OnnxNet:
    """A network of a file. `net(x)` takes x of `input_shape` and gives an array of `output_shape`, as in the file.

    It computes in the floating type of x, whatever the file's: the weights are cast to it (float64 needs x64 enabled).
    Products and convolutions are at the highest precision, on every device.
    """

    fn: Callable[[Array], Array]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    opset: int

    def __call__(self, x: Array) -> Array:
        """The outputs, of shape `output_shape`."""
        return self.fn(x)

    def flat(self, x: Array) -> Array:
        """The same between flat arrays in row-major order, [inputs] -> [outputs]: what X_i, Y_i of VNN-LIB are.

        `jax.vmap(net.flat)` is a `LogitsFn` for x [B, inputs].
        """
        return self.fn(x.reshape(self.input_shape)).reshape(-1)


def load_onnx(path: str | os.PathLike, *, input_shape: Sequence[int] | None = None) -> OnnxNet:
    """The network in an ONNX file of opset 7 to 22, gzipped or not; needs the extra [onnx].

    Args:
      input_shape: for files that leave more open than the first size, which is taken as 1, the batch.

    The file is trusted with nothing: it is read without running any of it, sizes are limited (`exchange.limits`), and
    data outside the file is read only from its folder. Raises `BadModel` for all that is damaged or not supported.
    """
    graph = read_graph(path)
    shape = _input_shape(path, graph, input_shape)
    plan = _Plan(graph)
    try:
        with jax.enable_x64(True):  # for integers of 64 bits in what is folded; the network itself is traced in float32
            out = jax.eval_shape(plan.trace, jax.ShapeDtypeStruct(shape, np.float32))
    except OpError as error:
        raise BadModel(path, str(error)) from error
    weights = {name: plan.constants[name] for node in plan.kept for name in node.inputs if name in plan.constants}
    run = functools.partial(_run, graph._replace(nodes=tuple(plan.kept), constants=weights), _in_type(weights), shape)
    return OnnxNet(run, shape, tuple(out.shape), graph.opset)


def _input_shape(path: str | os.PathLike, graph: Graph, given: Sequence[int] | None) -> tuple[int, ...]:
    """The file's input shape with an open batch as 1, or the given one, which must agree with the file's."""
    stored = graph.input_shape
    if given is None:
        if stored is None or None in stored[1:]:
            shown = "open" if stored is None else [size or "open" for size in stored]
            raise BadModel(path, f"input {graph.input!r} has shape {shown}: say which as input_shape=")
        return tuple(size or 1 for size in stored)
    pairs = [] if stored is None else list(itertools.zip_longest(stored, given, fillvalue=0))
    if (
        any(size not in (None, wanted) for size, wanted in pairs)
        or min(given, default=1) < 1
        or len(given) > limits.RANK
    ):
        shown = "open" if stored is None else [size or "open" for size in stored]
        raise BadModel(path, f"input {graph.input!r} has shape {shown}; input_shape={list(given)} does not fit")
    return tuple(given)


class _Plan:
    """Follows the network once, on shapes alone: checks every node, and computes what does not depend on the input."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.constants: dict[str, np.ndarray] = dict(graph.constants)
        self.kept: list[Node] = []
        self.folded = 0

    def trace(self, x: Array) -> Array:
        values, varying = {self.graph.input: x}, {self.graph.input}
        for node in self.graph.nodes:
            results = self.checked(node, values)
            if all(isinstance(result, np.ndarray) for result in results.values()):
                self.constants.update(results)
            else:
                values.update(results)
                varying.update(results if varying.intersection(node.inputs) else ())
                self.kept.append(node)
        output = values.get(self.graph.output)
        if not self.kept or self.graph.output not in varying or not jnp.issubdtype(output.dtype, jnp.floating):
            raise OpError(f"output {self.graph.output!r} is not computed from the input as numbers")
        return output

    def checked(self, node: Node, values: Mapping[str, Array]) -> dict[str, Any]:
        """The node's results; whatever keeps it from giving any is an `OpError` that names it."""
        try:
            return self.results(node, values)
        except OpError as error:
            raise OpError(f"{node}: {error}") from error
        except Exception as error:  # such as shapes that do not go together, for which JAX and NumPy raise many types
            reason = str(error).strip().split("\n")[0][:200]
            raise OpError(f"{node}: cannot be computed: {reason or type(error).__name__}") from error

    def results(self, node: Node, values: Mapping[str, Array]) -> dict[str, Any]:
        if node.op not in OPS:
            raise OpError(f"operator is not supported; supported are {' '.join(sorted(OPS))}")
        op = OPS[node.op]
        inputs = _inputs(op, node, values, self.constants.__getitem__, self.constants.__getitem__)
        expect_inputs(op, inputs)
        if op.folds and not any(name in values for name in node.inputs):
            return self.fold(op, node, inputs)
        _expect_numbers(op, inputs)
        call = _call(node, self.graph.opset, np.dtype(np.float32), jnp)
        results = _named(node, op.fn(call, *inputs))
        for result in results.values():
            expect_size(result.shape)
        if unread := call.unread():
            raise OpError(f"attribute {unread[0]!r} is not supported")
        return results

    def fold(self, op: Op, node: Node, inputs: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """The results in NumPy, after their shapes alone have shown that they are small enough to be made."""
        data = {i: v for i, v in enumerate(inputs) if v is not None and i not in op.needs}

        def shapes(data: dict[int, Array]) -> Any:
            return op.fn(_call(node, self.graph.opset, None, jnp), *(data.get(i, v) for i, v in enumerate(inputs)))

        if data:
            for result in jax.tree.leaves(jax.eval_shape(shapes, data)):
                expect_size(result.shape, limits.FOLDED_ELEMENTS - self.folded)
        call = _call(node, self.graph.opset, None, np)
        with np.errstate(all="ignore"):
            results = {name: np.asarray(v) for name, v in _named(node, op.fn(call, *inputs)).items()}
        if unread := call.unread():
            raise OpError(f"attribute {unread[0]!r} is not supported")
        self.folded += sum(result.size for result in results.values())
        expect_size([self.folded], limits.FOLDED_ELEMENTS)
        return results


def _run(graph: Graph, in_type: Callable[[np.dtype], dict[str, Array]], shape: tuple[int, ...], x: Array) -> Array:
    """The network at x, which is checked; the graph has been."""
    x = jnp.asarray(x)
    if x.shape != shape or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x: the network takes floating point of shape {shape}, not {x.dtype} of shape {x.shape}")
    values, weights = {graph.input: x}, in_type(x.dtype)
    for node in graph.nodes:
        op = OPS[node.op]
        inputs = _inputs(op, node, values, graph.constants.__getitem__, weights.__getitem__)
        values.update(_named(node, op.fn(_call(node, graph.opset, x.dtype, jnp), *inputs)))
    return values[graph.output]


def _inputs(op: Op, node: Node, values: Mapping[str, Array], constant: Callable, weight: Callable) -> list[Any]:
    """The node's inputs: values, constants as NumPy arrays where the operator wants them so, else as weights."""
    found = []
    for i, name in enumerate(node.inputs):
        if name in values and (i in op.needs):
            raise OpError(f"input {name!r} depends on the network's input; only constants are supported there")
        wanted = constant if i in op.needs or i in op.likes else weight
        found.append(values[name] if name in values else wanted(name) if name else None)
    return found


def _call(node: Node, opset: int, dtype: np.dtype | None, xp: types.ModuleType) -> Call:
    return Call(node.attributes, opset, dtype, xp, len(node.outputs))


def _named(node: Node, results: Any) -> dict[str, Any]:
    """Results by their names."""
    results = results if isinstance(results, tuple) else (results,)
    if any(node.outputs[len(results) :]):
        raise OpError(f"output {node.outputs[len(results)]!r} is not supported, only the first {len(results)}")
    return {name: result for name, result in zip(node.outputs, results, strict=False) if name}


def _expect_numbers(op: Op, inputs: Sequence[Any]) -> None:
    """Integers meet what depends on the input only as indices and the like; elsewhere types would be mixed."""
    data = [value for i, value in enumerate(inputs) if value is not None and i not in op.needs]
    if any(np.dtype(value.dtype).kind not in "fb" for value in data):
        raise OpError("has an integer tensor among inputs of floating point")


def _in_type(constants: Mapping[str, np.ndarray]) -> Callable[[np.dtype], dict[str, Array]]:
    """The constants as arrays of JAX, floating ones in the asked type; made once for each."""

    @functools.cache
    def in_type(dtype: np.dtype) -> dict[str, Array]:
        with jax.ensure_compile_time_eval():
            return {
                name: jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)
                for name, value in constants.items()
            }

    return in_type
