"""What is known of the values inside a program over a batch of threat sets: intervals and relaxations, in order."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.affine import is_affine
from robustgen.certify.interpreter import Equation, Program, Slot, UnknownPrimitive, trace
from robustgen.certify.planes import Planes, constant
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.rewrites import REWRITES
from robustgen.certify.rules import RULES, WHOLE
from robustgen.core import Array, Interval, LogitsFn, Threat

_IN_PLACE = frozenset(
    """add add_any sub neg mul div copy copy_p convert_element_type reshape transpose slice squeeze rev expand_dims
    pad""".split()
)
"""Affine equations whose results each depend on one element of their operand alone, and on no two the same."""


_SIDE_BY_SIDE = frozenset("concatenate stack".split())


class Region(NamedTuple):
    """A threat set around each example of a batch, and its box: lower and upper [B, *shape]."""

    threat: Threat
    x: Array
    box: Interval


class State(NamedTuple):
    """By slot: an `Interval` of arrays [B, *shape] where it depends on the input, else the array [*shape] itself.

    planes: by number of equation, [B, ...], for those that are not affine. tight: the slots whose intervals the linear
    pass cannot better. free: those of them whose elements vary independently. slack: how far a computed value may be
    off that of its equation, [B, *shape], or [*shape] for all; only where rounding is accounted for.
    """

    values: dict[Slot, Any]
    planes: dict[int, Planes]
    tight: set[Slot]
    free: set[Slot]
    slack: dict[Slot, Array] | None = None

    def exact(self) -> dict[Slot, Array]:
        """The values that do not depend on the input."""
        return {slot: value for slot, value in self.values.items() if not isinstance(value, Interval)}


Refine = Callable[[Program, State, Slot, Region], Interval]
"""Bounds of a slot, from what is known before it; they replace those of interval arithmetic."""

Amend = Callable[[Program, int, State], None]
"""Changes, in the state, what the equation of that number has just given: widens its values, notes their slack."""


def region(threat: Threat, x: Array) -> Region:
    """The sets around x [B, ...]."""
    return Region(threat, x, Interval(*threat.bounds(x)))


def program_of(logits_fn: LogitsFn, x: Array) -> Program:
    """What `logits_fn` does to one row like those of x [B, ...]; it must treat rows independently."""
    return trace(lambda row: logits_fn(row[None])[0], jax.ShapeDtypeStruct(x.shape[1:], x.dtype), WHOLE, REWRITES)


def analysed(program: Program, at: Region, refine: Refine, amend: Amend = lambda *_: None) -> State:
    """Bounds of all slots and planes of all equations; `refine` is asked wherever a relaxation needs an interval that
    interval arithmetic does not give as well."""
    start = {program.input}
    free = set(start if at.threat.is_box else ())
    state = State({**program.constants, program.input: at.box}, {}, set(start), free, {})
    for number, equation in enumerate(program.equations):
        if not program.perturbed.intersection(equation.inputs):
            results = equation.apply(*(state.values[slot] for slot in equation.inputs))
            state.values.update(zip(equation.outputs, results, strict=True))
        elif is_affine(equation, program):
            _bound(equation, state)
            _note_tightness(equation, program, state)
        else:
            for slot in dict.fromkeys(equation.inputs):
                if slot in program.perturbed and slot not in state.tight and is_real(program, slot):
                    state.values[slot] = refine(program, state, slot, at)
                    state.tight.add(slot)
            _bound(equation, state)
            state.planes[number] = mapped(equation, state.values, first_planes)
            state.tight.update(equation.outputs)
        amend(program, number, state)
    return state


def is_real(program: Program, slot: Slot) -> bool:
    """Whether a slot holds floating-point numbers; linear relations are about those alone."""
    return jnp.issubdtype(program.shapes[slot].dtype, jnp.floating)


def mapped(equation: Equation, values: dict[Slot, Any], function: Callable[..., Any]) -> Any:
    """function(equation, *operands) for each example of the batch; one slot's operands stay one object."""
    known = {slot: values[slot] for slot in equation.inputs}
    axes = {slot: 0 if isinstance(value, Interval) else None for slot, value in known.items()}
    return jax.vmap(lambda k: function(equation, *(k[slot] for slot in equation.inputs)), in_axes=(axes,))(known)


def interval(equation: Equation, *operands: Any) -> Any:
    """The rule of interval arithmetic for this primitive."""
    if equation.name not in RULES:
        raise UnknownPrimitive(equation.name)
    return RULES[equation.name](equation, *operands)


def first_planes(equation: Equation, *operands: Any) -> Planes | list[Planes]:
    """The planes of plain CROWN; constants where there is no relaxation, one pair for each of several results."""
    if equation.name in RELAXATIONS:
        relaxed = RELAXATIONS[equation.name](equation, *operands)
        return relaxed.planes(*relaxed.start)
    bounds = interval(equation, *operands)
    if isinstance(bounds, list):
        return [constant(b, operands).planes(None, None) for b in bounds]
    return constant(bounds, operands).planes(None, None)


def _bound(equation: Equation, state: State) -> None:
    results = mapped(equation, state.values, interval)
    state.values.update(zip(equation.outputs, results if isinstance(results, list) else [results], strict=True))


def _note_tightness(equation: Equation, program: Program, state: State) -> None:
    moved = [slot for slot in equation.inputs if slot in program.perturbed]
    if equation.name in _SIDE_BY_SIDE and state.tight.issuperset(moved):
        state.tight.update(equation.outputs)
    if len(moved) == 1:
        in_place = equation.name in _IN_PLACE
        if moved[0] in state.free or (in_place and moved[0] in state.tight):
            state.tight.update(equation.outputs)
        if in_place and moved[0] in state.free:
            state.free.update(equation.outputs)
