"""A config as a tree of dotted paths: `loss.attack.step_size`, `widths.0`. Shared nodes have several paths."""

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

import fiddle as fdl
from fiddle import daglish

from robustgen.config import fields
from robustgen.config.errors import ConfigError, field_error

NO_VALUE = fdl.NO_VALUE


class Field(NamedTuple):
    """One place of a config: its dotted path, its value (`NO_VALUE` where missing) and what its factory accepts."""

    path: str
    value: Any
    annotation: Any


def children(value: Any) -> dict[str, Any]:
    """What lies directly below a node or container, by the name a path uses; {} for anything else."""
    if isinstance(value, fdl.Buildable):
        named = fdl.ordered_arguments(value, include_defaults=True, include_unset=True)
        return {str(name): child for name, child in named.items()}
    if isinstance(value, dict):
        return {str(key): child for key, child in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return {str(i): child for i, child in enumerate(value)} if isinstance(value, (tuple, list)) else {}


def below(field: Field) -> Iterator[Field]:
    """The fields directly below `field`."""
    known = fields.annotations(field.value) if isinstance(field.value, fdl.Buildable) else None
    for name, child in children(field.value).items():
        annotation = fields.element(field.annotation, name) if known is None else known.get(name, Any)
        yield Field(f"{field.path}.{name}" if field.path else name, child, annotation)


def walk(config: Any) -> Iterator[Field]:
    """Every field, nodes and containers before what is in them, shared ones once for each path."""
    pending = list(below(Field("", config, Any)))
    while pending:
        field = pending.pop(0)
        yield field
        pending[:0] = below(field)


def leaves(config: Any) -> Iterator[Field]:
    """The fields that hold no node: numbers, strings, functions, tuples of these, and missing arguments."""
    held = [field for field in walk(config) if not holds_node(field.value)]
    paths = {field.path for field in held}
    return (field for field in held if field.path.rpartition(".")[0] not in paths)


def holds_node(value: Any) -> bool:
    """Whether `value` is a node or a container with one somewhere inside."""
    return isinstance(value, fdl.Buildable) or any(map(holds_node, children(value).values()))


def find(config: Any, path: str) -> Field:
    """The field at `path`. Raises `ConfigError` with the nearest path there is."""
    field = Field("", config, Any)
    for name in path.split("."):
        reached = {candidate.path: candidate for candidate in below(field)}
        wanted = f"{field.path}.{name}" if field.path else name
        if wanted not in reached:
            raise _unknown(config, field, path)
        field = reached[wanted]
    return field


def _unknown(config: Any, deepest: Field, path: str) -> ConfigError:
    siblings = [field.path for field in below(deepest)]
    everything = [field.path for field in walk(config)]
    namesakes = [known for known in everything if known.rpartition(".")[2] == path.rpartition(".")[2]]
    close = (
        difflib.get_close_matches(path, siblings, n=1) or namesakes or difflib.get_close_matches(path, everything, n=1)
    )
    if close:
        return field_error(path, f"unknown field; did you mean {close[0]}?")
    return field_error(path, f"unknown field; {deepest.path or 'the config'} has {', '.join(siblings) or 'no fields'}")


def put(node: Any, path: str, value: Any) -> Any:
    """`node` with `value` at the existing `path`. Nodes change in place, so what shares them sees it; containers are
    replaced."""
    name, _, rest = path.partition(".")
    new = put(children(node)[name], rest, value) if rest else value
    if isinstance(node, fdl.Buildable):
        if name.isdigit():
            node[int(name)] = new
        else:
            setattr(node, name, new)
        return node
    if isinstance(node, dict):
        return {key: new if str(key) == name else child for key, child in node.items()}
    if hasattr(node, "_replace"):
        return node._replace(**{name: new})
    return type(node)(new if str(i) == name else child for i, child in enumerate(node))


def copy(config: Any) -> Any:
    """A copy of nodes and containers that shares what `config` shares. Leaves, tracers among them, are the same."""
    return daglish.MemoizedTraversal.run(lambda value, state: state.map_children(value), config)


def dotted(path: daglish.Path) -> str:
    """fiddle's path in the notation of the command line."""
    return ".".join(str(getattr(e, "name", getattr(e, "key", getattr(e, "index", "")))) for e in path)
