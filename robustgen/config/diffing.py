"""How one config differs from another, in lines for people."""

from collections.abc import Iterator
from typing import Any

from robustgen.config.dumping import Json, join, to_json

_UNSET = {"unset": True}


def diff(base: Any, config: Any) -> list[str]:
    """What differs, a line each: `loss.beta: 6.0 -> 3`. A change of a shared node shows at each of its paths."""
    return list(_differences("", to_json(base, expand=True), to_json(config, expand=True)))


def _differences(path: str, old: Json, new: Json) -> Iterator[str]:
    if old == new:
        return
    below_old, below_new = _below(old, new), _below(new, old)
    if below_old is None or below_new is None:
        yield f"{path or 'config'}: {show(old)} -> {show(new)}"
        return
    for name in {**below_old, **below_new}:
        yield from _differences(join(path, name), below_old.get(name, _UNSET), below_new.get(name, _UNSET))


def _below(data: Json, other: Json) -> dict | None:
    """What to compare one by one: the knobs of the same factory, the entries of dicts and of equally long lists."""
    if isinstance(data, list) and isinstance(other, list) and len(data) == len(other):
        return dict(enumerate(data)) if any(isinstance(entry, dict) for entry in data + other) else None
    if not (isinstance(data, dict) and isinstance(other, dict) and data.keys() == other.keys()):
        return None
    if "dict" in data:
        return data["dict"]
    same = all(data[kind] == other[kind] for kind in ("factory", "partial") if kind in data)
    return data["knobs"] if "knobs" in data and same else None


def show(data: Json) -> str:
    """What `to_json` gave, as a person would write it: `ramp(start=0.0, ...)`, `(64, 32)`, `kl`."""
    if isinstance(data, list):
        return f"({', '.join(map(show, data))}{',' if len(data) == 1 else ''})"
    if not isinstance(data, dict):
        return repr(data)
    match data:
        case {"knobs": knobs, **head}:
            name = next(iter(head.values())).rpartition(":")[2]
            return f"{name}({', '.join(f'{knob}={show(value)}' for knob, value in knobs.items())})"
        case {"function": name}:
            return name.rpartition(":")[2]
        case {"unset": _}:
            return "unset"
        case {"dict": items}:
            return "{" + ", ".join(f"{key}: {show(value)}" for key, value in items.items()) + "}"
    return str(next(iter(data.values())))
