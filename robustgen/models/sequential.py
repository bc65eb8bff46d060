"""A plain network from a list of layers and named arrays, as small reference nets are stored.

    layers = [
        {"type": "conv", "w": "0_w", "b": "0_b", "stride": [2, 2], "padding": [[1, 1], [1, 1]],
         "kernel_layout": "HWIO"},
        {"type": "relu"},
        {"type": "flatten", "order": "NHWC"},
        {"type": "dense", "w": "1_w", "b": "1_b", "layout": "in,out"},
    ]
    net = sequential(layers, load_weights("std.npz"), shape=(28, 28, 1))
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robustgen.core import Array, Net, PyTree
from robustgen.models.conv import conv2d
from robustgen.models.importing import Convert, as_is, from_torch_conv, from_torch_dense
from robustgen.models.layers import reduced
from robustgen.models.weights import Weights, WeightsError, listed

_KERNELS = {"HWIO": as_is, "OIHW": from_torch_conv}
_DENSE = {"in,out": as_is, "out,in": from_torch_dense}


def sequential(layers: Sequence[Mapping[str, Any]], weights: Weights, *, shape: tuple[int, ...]) -> Net:
    """A net of `layers`, one after the other, for inputs of `shape` (one example's), NHWC.

    Layers are dicts with a "type" and
      conv: "w", "b" (names of arrays), "stride" [s, s], "padding" [[top, bottom], [left, right]],
            "kernel_layout" HWIO|OIHW
      dense: "w", "b", "layout" in,out|out,in
      relu
      flatten: "order", which begins with NHWC or NCHW: how the layer that follows numbers its inputs
    Other entries are notes. Raises `WeightsError` for other layers, for arrays that are missing or left over, and where
    shapes do not fit, naming the layer.
    """
    steps = tuple(_step(i, dict(layer)) for i, layer in enumerate(layers))
    used = {name for step in steps for name in step.arrays}
    if absent := sorted(used - weights.keys()):
        raise WeightsError(f"layers without their arrays: {listed(absent)}")
    if left := sorted(weights.keys() - used):
        raise WeightsError(f"arrays that no layer uses: {listed(left)}")
    params = {name: array for step in steps for name, array in _params(step, weights).items()}
    _refuse_misfits(steps, params, shape)
    return Net(params=params, state={}, apply_fn=_Sequential(steps))


@dataclasses.dataclass(frozen=True)
class _Step:
    """One layer; hashable, so that equal nets share a compile. `turn` makes its kernel HWIO or [in, out]."""

    label: str
    kind: str
    arrays: tuple[str, ...] = ()
    turn: Convert = as_is
    settings: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Sequential:
    """`Net.apply_fn` of the steps; neither state nor dropout."""

    steps: tuple[_Step, ...]

    def __call__(self, variables: PyTree, x: Array, train: bool, mutable: Any = None, rngs: Any = None) -> Any:
        del train, rngs
        for step in self.steps:
            x = _run(step, variables["params"], x)
        return x if mutable is None else (x, {})


def _run(step: _Step, params: PyTree, x: Array) -> Array:
    return _FORWARD[step.kind](x, *(params[name] for name in step.arrays), *step.settings)


def _refuse_misfits(steps: Sequence[_Step], params: PyTree, shape: tuple[int, ...]) -> None:
    """Raises `WeightsError`, naming the first layer that cannot take what the one before gives."""
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    for step in steps:
        try:
            x = jax.eval_shape(lambda x, step=step: _run(step, params, x), x)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{step.label}: does not fit an input of {x.shape[1:]} ({reason})") from error


def _step(i: int, layer: dict[str, Any]) -> _Step:
    """The step of an entry of the list. Raises `WeightsError` for what it does not know."""
    kind = layer.get("type")
    label = f"layer {i} ({kind})"
    try:
        if kind == "relu":
            return _Step(label, kind)
        if kind == "flatten":
            return _Step(label, kind, settings=(_known(layer["order"][:4], {"NHWC": True, "NCHW": False}),))
        if kind == "dense":
            return _Step(label, kind, (layer["w"], layer["b"]), _known(layer["layout"], _DENSE))
        if kind == "conv":
            padding = tuple(tuple(ends) for ends in layer["padding"])
            settings = _square(layer["stride"]), padding
            return _Step(label, kind, (layer["w"], layer["b"]), _known(layer["kernel_layout"], _KERNELS), settings)
    except KeyError as error:
        raise WeightsError(f"{label}: has no {error.args[0]!r}") from error
    except WeightsError as error:
        raise WeightsError(f"{label}: {error}") from error
    raise WeightsError(f"{label}: is not one of {', '.join(_FORWARD)}")


def _params(step: _Step, weights: Weights) -> dict[str, Array]:
    """Kernel turned to HWIO or [in, out], and bias."""
    if not step.arrays:
        return {}
    kernel, bias = step.arrays
    try:
        return {kernel: jnp.asarray(step.turn(weights[kernel])), bias: jnp.asarray(weights[bias])}
    except WeightsError as error:
        raise WeightsError(f"{step.label}: {kernel} {error}") from error


def _known(text: str, table: Mapping[str, Any]) -> Any:
    if text not in table:
        raise WeightsError(f"{text!r} is not one of {', '.join(table)}")
    return table[text]


def _square(stride: Sequence[int]) -> int:
    if len(set(stride)) != 1:
        raise WeightsError(f"strides must be equal; got {list(stride)}")
    return stride[0]


def _conv(x: Array, kernel: Array, bias: Array, stride: int, padding: tuple) -> Array:
    x, kernel, bias = reduced("float32", x, kernel, bias)
    return conv2d(x, kernel, stride=stride, padding=padding) + bias.reshape(1, 1, 1, -1)


def _dense(x: Array, kernel: Array, bias: Array) -> Array:
    x, kernel, bias = reduced("float32", x, kernel, bias)
    return x @ kernel + bias.reshape(1, -1)


def _flatten(x: Array, channels_last: bool) -> Array:
    image = x if channels_last or x.ndim < 4 else jnp.transpose(x, (0, 3, 1, 2))
    return image.reshape(x.shape[0], -1)


_FORWARD: dict[str, Callable[..., Array]] = {
    "conv": _conv, "dense": _dense, "relu": jax.nn.relu, "flatten": _flatten,
}  # fmt: skip
