"""A config as plain data that people can read, the way back, and a fingerprint."""

import hashlib
import importlib
import json
import math
from collections.abc import Callable
from typing import Any

import fiddle as fdl
import numpy as np

from robustgen.config import tree
from robustgen.config.errors import ConfigError, field_error

Json = Any


def to_json(config: Any, *, expand: bool = False) -> Json:
    """`config`, defaults included, as JSON data: {"factory": "module:name", "knobs": {...}}, {"function": ...}, values.

    A node met before is {"same": its first path}, or written out again where `expand`. Tuples and lists are lists.
    Raises `ConfigError` for what a record cannot name: lambdas, local functions, unknown objects.
    """
    return _encode(config, "", {}, expand)


def from_json(data: Json, *, packages: tuple[str, ...] = ("robustgen",)) -> Any:
    """The config that `to_json` wrote, shared nodes shared; lists come back as tuples.

    Imports, and lets a build call, only functions and classes *defined* in `packages`. Raises `ConfigError` for others,
    such as functions of a config file: load that file instead.
    """
    return _decode(data, "", {}, packages)


def fingerprint(config: Any) -> str:
    """12 hex digits of SHA-256 over factories and values, defaults included: the same for 3 and 3.0, and in any order
    of the arguments."""
    text = json.dumps(_canonical(to_json(config, expand=True)), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def short_name(function: Callable) -> str:
    """`trades` for `robustgen.losses.trades:trades`."""
    return getattr(function, "__qualname__", type(function).__name__).rpartition(".")[2]


def _encode(value: Any, path: str, seen: dict[int, str], expand: bool) -> Json:
    if isinstance(value, fdl.Buildable):
        return _encode_node(value, path, seen, expand)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        if unclear := [key for key in value if not isinstance(key, str) or set(key) & set(".= ")]:
            raise field_error(path, f"keys must be text without dots, blanks and equals signs; got {unclear[0]!r}")
        return {"dict": {key: _encode(entry, join(path, key), seen, expand) for key, entry in value.items()}}
    if isinstance(value, (tuple, list)):
        return [_encode(entry, join(path, i), seen, expand) for i, entry in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    return {"function": _name(value, path)}


def _encode_node(node: fdl.Buildable, path: str, seen: dict[int, str], expand: bool) -> Json:
    if id(node) in seen and not expand:
        return {"same": seen[id(node)]}
    seen.setdefault(id(node), path)
    kind = "partial" if isinstance(node, fdl.Partial) else "factory"
    written = {str(name) for name in fdl.ordered_arguments(node)}
    knobs = {}
    for name, value in tree.children(node).items():
        try:
            if value is not fdl.NO_VALUE:
                knobs[name] = _encode(value, join(path, name), seen, expand)
        except ConfigError:
            if name in written:  # an unwritten default that is not data is the factory's own business
                raise
    return {kind: _name(fdl.get_callable(node), path), "knobs": knobs}


def _name(value: Any, path: str) -> str:
    name = f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
    if not callable(value) or "None" in name.split(":"):
        kind = type(value).__name__
        raise field_error(path, f"a record of the run cannot name this {kind}; write fdl.Config(factory, ...) instead")
    if "<" in name:
        shown = name.rpartition(":")[2]
        raise field_error(path, f"a record of the run cannot name {shown}; define it with def in a file")
    return name


def _decode(data: Json, path: str, seen: dict[str, Any], packages: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return tuple(_decode(entry, join(path, i), seen, packages) for i, entry in enumerate(data))
    if not isinstance(data, dict):
        return data
    match data:
        case {"same": str(first)} if first in seen:
            return seen[first]
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"array": list() | int() | float() as values, "dtype": str(dtype)}:
            return _array(values, dtype, path)
        case {"dict": dict(items)}:
            return {key: _decode(value, join(path, key), seen, packages) for key, value in items.items()}
        case {"function": str(name)}:
            return _function(name, path, packages)
        case {"factory": str(name), "knobs": dict(knobs)} | {"partial": str(name), "knobs": dict(knobs)}:
            return _decode_node(data, name, knobs, path, seen, packages)
    raise field_error(path, f"not a recorded config: {str(data)[:80]}")


def _array(values: Any, dtype: str, path: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise field_error(path, f"not a recorded array: {error}") from error


def _decode_node(data: Json, name: str, knobs: dict, path: str, seen: dict, packages: tuple[str, ...]) -> Any:
    kind = fdl.Partial if "partial" in data else fdl.Config
    node = seen[path] = kind(_function(name, path, packages))
    for knob, value in knobs.items():
        try:
            setattr(node, knob, _decode(value, join(path, knob), seen, packages))
        except (AttributeError, TypeError) as error:
            raise field_error(join(path, knob), f"{name} has no such argument any more") from error
    return node


def _function(name: str, path: str, packages: tuple[str, ...]) -> Callable:
    """The function called `name`, which must itself say that it was defined there: no way to what a module imports."""
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] not in packages or module.endswith("__main__"):
        raise field_error(path, f"{name} is not defined in {', '.join(packages)}; load the config file it is from")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (AttributeError, ImportError) as error:
        raise field_error(path, f"there is no {name} any more") from error
    if (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) != (module, qualname):
        raise field_error(path, f"{name} is not defined where it says")
    return found


def _canonical(data: Json) -> Json:
    if isinstance(data, dict):
        return {key: _canonical(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_canonical(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def join(path: str, name: Any) -> str:
    """The dotted path of `name` below `path`."""
    return f"{path}.{name}" if path else str(name)
