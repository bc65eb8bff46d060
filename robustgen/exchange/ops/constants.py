"""Operators that make constants, look at shapes, change types, or do nothing at inference."""

import math

import numpy as np

from robustgen.exchange import limits
from robustgen.exchange.ops.call import Call, Op, OpError, Values, expect_size, integers_of, scalar_of
from robustgen.exchange.tensors import BadTensor, dtype_of

_KINDS = {  # attribute of Constant -> dtype; None: a tensor has its own
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant(call: Call) -> np.ndarray:
    """A tensor, number or list of numbers from the attributes."""
    values = {name: call.get(name, (np.ndarray, float, int, tuple)) for name in _KINDS}
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) != 1:
        raise OpError(f"has {len(given)} values; accepted is one of {', '.join(_KINDS)}")
    ((name, value),) = given.items()
    if isinstance(value, np.ndarray) != (name == "value") or isinstance(value, tuple) != name.endswith("s"):
        raise OpError(f"attribute {name!r} is of another type")
    return np.asarray(value, _KINDS[name])


def constant_of_shape(call: Call, shape: np.ndarray) -> np.ndarray:
    """A tensor of one value, 0.0 unless said otherwise."""
    sizes, value = integers_of("the shape", shape), call.get("value", np.ndarray, np.zeros(1, np.float32))
    if min(sizes, default=0) < 0:
        raise OpError(f"has shape {list(sizes)[:8]}")
    expect_size(sizes, limits.FOLDED_ELEMENTS)
    return np.full(sizes, scalar_of("the value", value), value.dtype)


def shape(call: Call, x: Values) -> np.ndarray:
    """The sizes of a tensor, of axes `start` to `end`."""
    start, end = call.get("start", int, 0), call.get("end", int)
    return np.array(x.shape[start:end], np.int64)


def size(call: Call, x: Values) -> np.ndarray:
    """The number of elements."""
    return np.array(math.prod(x.shape), np.int64)


def range_(call: Call, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """start, start + delta, ... up to and without the limit."""
    first, last, step = (scalar_of("a bound or step", v) for v in (start, limit, delta))
    if not step or not all(map(math.isfinite, (first, last, step))):
        raise OpError(f"goes from {first} to {last} by {step}")
    count = max(math.ceil((last - first) / step), 0)
    expect_size([count], limits.FOLDED_ELEMENTS)
    return (start.reshape(()) + np.arange(count) * delta.reshape(())).astype(start.dtype)


def cast(call: Call, x: Values) -> Values:
    """Another type. What depends on the network's input stays in its floating type: to integers it cannot be cast."""
    try:
        wanted = dtype_of(call.get("to", int, 0))
    except BadTensor as error:
        raise OpError(f"attribute 'to' {error}") from error
    if call.dtype is None:  # folded
        return x.astype(wanted)
    if wanted not in (np.float32, np.float64):
        raise OpError(f"casts what depends on the network's input to {wanted}; only to float32 or float64 is supported")
    return x.astype(call.dtype)


def dropout(call: Call, x: Values, ratio: np.ndarray | None = None, training: np.ndarray | None = None) -> Values:
    """Nothing, at inference."""
    call.get("ratio", float)
    call.get("seed", int)
    if training is not None and scalar_of("training_mode", training):
        raise OpError("is in training mode")
    return x


OPS = {
    "Constant": Op(constant, folds=True),
    "ConstantOfShape": Op(constant_of_shape, needs=(0,), folds=True),
    "Shape": Op(shape, folds=True),
    "Size": Op(size, folds=True),
    "Range": Op(range_, needs=(0, 1, 2), folds=True),
    "Cast": Op(cast, folds=True),
    "Identity": Op(lambda call, x: x, folds=True),
    "Dropout": Op(dropout, needs=(1, 2), folds=True),
}
