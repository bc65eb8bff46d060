"""Ranges for the numbers a factory takes, checked where they are given: `eps: Positive`, `num_steps: Count`.

`@checked` reads the annotations of a factory and refuses a concrete value of the wrong type or out of range with one
line that names the knob, the value and what is accepted. Tracers and schedules pass, so every knob can be ramped,
swept by `vmap`, or differentiated.
"""

import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import jax
import numpy as np


class KnobError(ValueError):
    """A knob has a value that its factory does not accept. `knob` is its name, `reason` the rest of the sentence."""

    def __init__(self, knob: str, reason: str):
        super().__init__(f"{knob}: {reason}")
        self.knob, self.reason = knob, reason


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; `open_low` and `open_high` leave the ends out."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(math.isfinite(value) and above and below)

    def __str__(self) -> str:
        low = [f"{'>' if self.open_low else '>='} {self.low:g}"] if self.low > -math.inf else []
        high = [f"{'<' if self.open_high else '<='} {self.high:g}"] if self.high < math.inf else []
        return " and ".join(["finite", *low, *high])


Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, open_high=True)]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]


F = TypeVar("F", bound=Callable)


def checked(factory: F) -> F:
    """Makes `factory` refuse concrete arguments that its annotations exclude. Raises `KnobError`."""
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def guarded(*args, **kwargs):
        annotations = hints(factory)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in annotations:
                check(name, annotations[name], value)
        return factory(*args, **kwargs)

    return guarded


@functools.cache
def hints(factory: Callable) -> dict[str, Any]:
    """The annotations of `factory`'s parameters, `Range`s included."""
    return typing.get_type_hints(inspect.unwrap(factory), include_extras=True)


def check(knob: str, annotation: Any, value: Any) -> None:
    """Raises `KnobError` unless `value` is what `annotation` describes.

    Numbers, bool, str, tuples of these, `Literal` and unions are looked at; other annotations accept anything, since
    what a function or an array should be is told by its shape and its contract.
    """
    if isinstance(value, jax.core.Tracer):
        return
    reason = _refusal(annotation, value)
    if reason:
        raise KnobError(knob, reason)


def _refusal(annotation: Any, value: Any) -> str | None:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _refusal(args[0], value) or _out_of_range(value, [a for a in args[1:] if isinstance(a, Range)])
    if origin in (typing.Union, types.UnionType):
        refusals = [_refusal(a, value) for a in _alternatives(args, value)]
        return None if None in refusals else refusals[0]
    if origin is typing.Literal:
        return None if value in args else f"must be one of {', '.join(map(repr, args))}; got {value!r}"
    if origin is tuple:
        return _tuple_refusal(args, value)
    if annotation in _ACCEPTS:
        accepts, words = _ACCEPTS[annotation]
        return None if accepts(value) else f"must be {words}; got {value!r}"
    return None


def _alternatives(union: tuple, value: Any) -> list:
    """The members of a union that `value` is held against: in `Positive | Schedule`, a number is no schedule."""
    plain = isinstance(value, (numbers.Number, str, np.ndarray, jax.Array, type(None)))
    if not plain or not any(map(_describes_data, union)):
        return list(union)
    return [a for a in union if _describes_data(a) or a is type(None)]


def _describes_data(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return origin in (Annotated, typing.Literal, tuple, float, int, bool, str)


def _tuple_refusal(args: tuple, value: Any) -> str | None:
    if not isinstance(value, (tuple, list)):
        return f"must be a tuple; got {value!r}"
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        return f"must have {len(args)} entries; got {value!r}"
    return next(filter(None, map(_refusal, args, value)), None)


def _out_of_range(value: Any, ranges: list[Range]) -> str | None:
    for accepted in ranges:
        if not all(float(v) in accepted for v in np.ravel(value)):
            return f"must be {accepted}; got {value}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) or _is_array(value, "fiu")


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) or _is_array(value, "iu")


def _is_array(value: Any, kinds: str) -> bool:
    return isinstance(value, (np.ndarray, np.generic, jax.Array)) and np.dtype(value.dtype).kind in kinds


_ACCEPTS = {
    float: (_is_number, "a number"),
    int: (_is_integer, "a whole number"),
    bool: (lambda value: isinstance(value, (bool, np.bool_)), "True or False"),
    str: (lambda value: isinstance(value, str), "a string"),
    type(None): (lambda value: value is None, "None"),
}
