"""Finding functions in a flat list of equations: those that JAX writes out where they are used, such as `jax.nn.gelu`.

A pattern is the list of equations that the function itself gives. It is found where a program has, equation for
equation, the same primitives with the same parameters and constants, each fed by the one before.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Slot = int
_COMMUTING = frozenset("add mul max min".split())


class Pattern(NamedTuple):
    """The equations of a function; `inputs` are the slots of its arguments, the first of which is perturbed."""

    inputs: tuple[Slot, ...]
    output: Slot
    equations: Sequence[Any]
    constants: Mapping[Slot, Any]


class Found(NamedTuple):
    """A function in a program: the number of the equation whose result is the function's, and its arguments' slots."""

    root: int
    arguments: tuple[Slot, ...]


def occurrences(
    pattern: Callable[[tuple[int, ...], Any], Pattern | None],
    equations: Sequence[Any],
    constants: Mapping[Slot, Any],
    perturbed: Collection[Slot],
    shapes: Sequence[Any],
) -> Iterator[Found]:
    """Where a pattern, given at the shape and dtype of its perturbed argument, is found in a program's equations."""
    users: dict[Slot, list[int]] = {}
    for number, equation in enumerate(equations):
        for slot in dict.fromkeys(equation.inputs):
            users.setdefault(slot, []).append(number)
    for slot in users:
        if slot in perturbed:
            wanted = pattern(shapes[slot].shape, shapes[slot].dtype)
            found = wanted and _grown(wanted, slot, equations, constants, shapes, users)
            if found:
                yield found


def _grown(pattern: Pattern, start: Slot, equations, constants, shapes, users) -> Found | None:
    """The occurrence of a pattern whose first argument is `start`, if there is one."""

    def grow(index: int, bound: dict[Slot, Slot], root: int) -> Found | None:
        if index == len(pattern.equations):
            return Found(root, tuple(bound[slot] for slot in pattern.inputs))
        wanted = pattern.equations[index]
        known = [bound[slot] for slot in wanted.inputs if slot in bound]
        for number in users.get(known[0], ()) if known else range(len(equations)):
            pairs = _unified(wanted, equations[number], pattern, bound, constants, shapes)
            found = None if pairs is None else grow(index + 1, {**bound, **pairs}, number)
            if found is not None:
                return found
        return None

    return grow(0, {pattern.inputs[0]: start}, -1)


def _unified(wanted, equation, pattern: Pattern, bound, constants, shapes) -> dict[Slot, Slot] | None:
    """What an equation of a pattern binds when it is taken to be one of the program; None if it cannot be that."""
    if wanted.name != equation.name or len(wanted.inputs) != len(equation.inputs):
        return None
    if not _same_params(wanted.params, equation.params):
        return None
    orders = [equation.inputs, equation.inputs[::-1]] if equation.name in _COMMUTING else [equation.inputs]
    tried = (_paired(wanted, inputs, equation.outputs, pattern, bound, constants, shapes) for inputs in orders)
    return next((pairs for pairs in tried if pairs is not None), None)


def _paired(wanted, inputs, outputs, pattern: Pattern, bound, constants, shapes) -> dict[Slot, Slot] | None:
    """The slots of a pattern's equation beside the program's, for this order of operands; None if they differ."""
    pairs = dict(zip(wanted.outputs, outputs, strict=True))
    for ours, theirs in zip(wanted.inputs, inputs, strict=True):
        if ours in pattern.constants:
            if theirs not in constants or not _same_value(pattern.constants[ours], constants[theirs]):
                return None
        elif ours in bound or ours in pairs:
            if bound.get(ours, pairs.get(ours)) != theirs:
                return None
        elif ours in pattern.inputs and theirs in constants and shapes[theirs].shape == ():
            pairs[ours] = theirs
        else:
            return None
    return pairs


def _same_params(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(str(ours[key]) == str(theirs[key]) for key in ours)


def _same_value(ours: Any, theirs: Any) -> bool:
    return np.shape(ours) == np.shape(theirs) == () and ours.dtype == theirs.dtype and bool(ours == theirs)
