"""What an operator's function is given and gives: `op(call, *inputs) -> array`, or a tuple of arrays.

Inputs are jax arrays, or NumPy arrays where the operator is computed once and for all while the file is read; None for
optional ones left out. Functions are written for both: methods and operators of arrays, and `call.xp` for the rest.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from robustgen.core import Array
from robustgen.exchange import limits

Values = np.ndarray | Array


class OpError(ValueError):
    """An operator is used in a way that is not supported; the importer says where."""


class Op(NamedTuple):
    """How an operator is computed.

    needs   positions of inputs that must be constants; they come as NumPy arrays
    likes   positions of inputs that come as NumPy arrays where they are constants
    folds   whether it is computed in NumPy where all its inputs are constants (cheap ones, with shapes in them)
    """

    fn: Callable[..., Any]
    needs: tuple[int, ...] = ()
    likes: tuple[int, ...] = ()
    folds: bool = False


class Call:
    """The circumstances of one call: the file's `opset`, and NumPy or jax.numpy as `xp`.

    `dtype` is the network's floating type, None while constants are folded.
    """

    def __init__(
        self, attributes: Mapping[str, Any], opset: int, dtype: np.dtype | None, xp: ModuleType, num_outputs: int = 1
    ):
        self.opset, self.dtype, self.xp, self.num_outputs = opset, dtype, xp, num_outputs
        self._attributes, self._read = attributes, set()

    def get(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The attribute `name`, `default` where there is none. Raises `OpError` where it is of another kind."""
        self._read.add(name)
        value = self._attributes.get(name, default)
        if value is not default and not isinstance(value, kind):
            raise OpError(f"attribute {name!r} is {shortly(value)}, which is of another type than it has")
        if isinstance(value, float) and not math.isfinite(value):
            raise OpError(f"attribute {name!r} is {value}, not finite")
        return value

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is 0 or 1."""
        return self.one_of(name, (0, 1), default) == 1

    def one_of(self, name: str, accepted: Sequence[Any], default: Any) -> Any:
        """An attribute with few accepted values."""
        value = self.get(name, type(default), default)
        if value not in accepted:
            raise OpError(f"attribute {name!r} is {shortly(value)}; accepted: {', '.join(map(str, accepted))}")
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """An attribute that is a list of integers."""
        value = self.get(name, tuple, default)
        if value is not None and not all(isinstance(each, int) for each in value):
            raise OpError(f"attribute {name!r} is {shortly(value)}, not integers")
        return value if value is None else tuple(value)

    def unread(self) -> list[str]:
        """The attributes that nothing has asked for, so that their effect would be missing."""
        return sorted(set(self._attributes) - self._read)


def expect_inputs(op: Op, inputs: Sequence[Any]) -> None:
    """Raises `OpError` where there are too many inputs, or required ones are left out."""
    parameters = list(inspect.signature(op.fn).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        if not inputs or any(each is None for each in inputs):
            raise OpError("needs inputs, and none left out")
        return
    required = sum(parameter.default is parameter.empty for parameter in parameters)
    if not required <= len(inputs) <= len(parameters) or any(each is None for each in inputs[:required]):
        raise OpError(f"takes {required} to {len(parameters)} inputs; it has {sum(i is not None for i in inputs)}")


def expect_size(shape: Sequence[int], limit: int = limits.ELEMENTS) -> None:
    """Raises `OpError` for a shape too large to be made."""
    if len(shape) > limits.RANK or math.prod(shape) > limit:
        raise OpError(f"makes a tensor of shape {shortly(list(shape))}; at most {limits.RANK} axes, {limit} elements")


def axis_in(axis: int, rank: int) -> int:
    """An axis counted from 0. Raises `OpError` unless -rank <= axis < rank."""
    if not -rank <= axis < rank:
        raise OpError(f"has axis {axis}; there are {rank} axes")
    return axis % rank


def axes_in(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from 0, each once."""
    found = tuple(axis_in(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise OpError(f"has an axis twice: {shortly(axes)}")
    return found


def integers_of(what: str, values: np.ndarray) -> tuple[int, ...]:
    """A constant input that is a list of integers (or one)."""
    if values.dtype.kind not in "iu" or values.ndim > 1 or values.size > 2**16:
        raise OpError(f"{what} is not a list of integers, but {values.dtype} of shape {list(values.shape)}")
    return tuple(map(int, values.reshape(-1)))


def scalar_of(what: str, values: np.ndarray) -> float:
    """A constant input that is one number."""
    if values.size != 1 or values.dtype.kind not in "fiub":
        raise OpError(f"{what} is not one number, but {values.dtype} of shape {list(values.shape)}")
    return values.reshape(()).item()


def shortly(value: Any, most: int = 60) -> str:
    """A value in few characters."""
    text = repr(value) if not isinstance(value, np.ndarray) else f"a tensor of shape {list(value.shape)}"
    return text if len(text) <= most else text[: most - 3] + "..."
