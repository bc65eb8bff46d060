"""What the annotation of a factory's parameter says about its values on the command line."""

import collections.abc
import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import fiddle as fdl

from robustgen import knobs
from robustgen.schedules import Schedule

_WORDS = {float: "a number", int: "a whole number", bool: "True or False", str: "a string", type(None): "None"}


def annotations(node: fdl.Buildable) -> dict[str, Any]:
    """The annotations of the parameters of a node's factory, `Range`s included; {} where it has none to be read."""
    factory = fdl.get_callable(node)
    if isinstance(factory, type) and not dataclasses.is_dataclass(factory) and not hasattr(factory, "_fields"):
        factory = factory.__init__
    try:
        return knobs.hints(factory)
    except (NameError, TypeError):
        return {}


def arms(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for arm in typing.get_args(annotation):
            yield from arms(arm)
    else:
        yield annotation


def data_arms(annotation: Any) -> list[Any]:
    """The members that can be written on a command line: numbers, strings, bool, None, `Literal`, tuples of these."""
    return [arm for arm in arms(annotation) if _is_data(arm)]


def _is_data(arm: Any) -> bool:
    origin, args = typing.get_origin(arm), typing.get_args(arm)
    if origin is Annotated:
        return _is_data(args[0])
    if origin is tuple:
        return all(arg is Ellipsis or data_arms(arg) for arg in args)
    return origin is typing.Literal or arm in _WORDS


def takes_real(annotation: Any) -> bool:
    """Whether a member is a real number: not a whole one, nor one inside a tuple."""
    bases = [typing.get_args(arm)[0] if typing.get_origin(arm) is Annotated else arm for arm in data_arms(annotation)]
    return float in bases


def refusal(annotation: Any, value: Any) -> str | None:
    """Why none of the members that are data accepts `value`, with what is accepted instead; None where one does."""
    reasons = [_refusal(arm, value) for arm in data_arms(annotation)]
    return None if None in reasons else next(iter(reasons), "takes no plain value")


def _refusal(arm: Any, value: Any) -> str | None:
    try:
        knobs.check("", arm, value)
    except knobs.KnobError as error:
        return error.reason
    return None


def admits_schedule(annotation: Any) -> bool:
    """Whether the factory takes a `Schedule` as it is, rather than its value at a step."""
    return any(arm is Schedule or typing.get_origin(arm) is collections.abc.Callable for arm in arms(annotation))


def closed(annotation: Any) -> Any:
    """The members that are data with the ends of their ranges included: what the extremes of a schedule may touch."""
    shut = [*map(_closed, data_arms(annotation))]
    return functools.reduce(operator.or_, shut) if shut else Any


def _closed(arm: Any) -> Any:
    if typing.get_origin(arm) is not Annotated:
        return arm
    base, *extras = typing.get_args(arm)
    shut = [dataclasses.replace(e, open_low=False, open_high=False) for e in extras if isinstance(e, knobs.Range)]
    return Annotated[(base, *shut)] if shut else base


def element(annotation: Any, name: str) -> Any:
    """The annotation of the entry `name` (an index or a key, as text) of an annotated tuple, list or dict."""
    for arm in arms(annotation):
        origin, args = typing.get_origin(arm), typing.get_args(arm)
        if origin in (dict, collections.abc.Mapping):
            return args[1]
        if origin is list or origin is tuple and args[1:] == (Ellipsis,):
            return args[0]
        if origin is tuple and name.isdigit() and int(name) < len(args):
            return args[int(name)]
    return Any


def words(annotation: Any) -> str:
    """What is accepted, for help texts: `a number, finite and >= 0`; "" where nothing can be set."""
    return " or ".join(map(_words, data_arms(annotation)))


def _words(arm: Any) -> str:
    origin, args = typing.get_origin(arm), typing.get_args(arm)
    if origin is Annotated:
        ranges = [f", {extra}" for extra in args[1:] if isinstance(extra, knobs.Range)]
        return _words(args[0]) + "".join(ranges)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        return "a tuple (" + "; ".join("..." if arg is Ellipsis else words(arg) for arg in args) + ")"
    return _WORDS[arm]
