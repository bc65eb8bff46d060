"""Linear relations carried back through a program: the one pass that CROWN and all its relatives are made of.

    relation = backward(program, {slot: rows}, relaxed planes, exact values)

says of each row that its value is at least `sum coefficients * input + offset` on the set for which the planes hold.
Coefficients at a slot are an array [P, O, *shape] or `Patches`; (p, o) is a row. Everything here is about one example:
the engine maps it over a batch.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify import coefficients as co
from robustgen.certify import patches as windows
from robustgen.certify.affine import is_affine
from robustgen.certify.coefficients import Coefficients as Coefficients
from robustgen.certify.convolution import sliding
from robustgen.certify.convolution import whole as whole_map
from robustgen.certify.interpreter import Equation, Program, Slot
from robustgen.certify.patches import Patches
from robustgen.certify.planes import Planes
from robustgen.core import Array

_ELEMENTWISE = frozenset("add add_any sub neg mul div copy copy_p convert_element_type select_n".split())
_ADDS_CONSTANTS = frozenset("add add_any sub pad concatenate stack select_n".split())
REDUCED = frozenset("reduce_max reduce_min logsumexp".split())


class Relation(NamedTuple):
    """rows >= sum coefficients * input + offset. coefficients is None where no row depends on the input."""

    coefficients: Coefficients | None
    offset: Array


class Sides(NamedTuple):
    """What is done at a slot beside the planes.

    tilt: added to the rows' coefficients (multipliers of constraints on the slot's value), [*shape] or [P, O, *shape]
    slack: how far the computed value may be off the function's, [*shape]: taken off every row with its coefficient
    """

    tilt: Array | None = None
    slack: Array | None = None


class Front(NamedTuple):
    """Rows on their way back: coefficients [P, O, ...] by slot, and what they have gathered so far [P, O]."""

    coefficients: Mapping[Slot, Coefficients]
    offset: Array


def front(start: Mapping[Slot, Coefficients]) -> Front:
    """Rows that have not moved yet."""
    first = next(iter(start.values()))
    rows = (first.at.shape[0], first.values.shape[1]) if isinstance(first, Patches) else first.shape[:2]
    return Front(start, jnp.zeros(rows, co.numbers(first).dtype))


def backward(
    program: Program,
    start: Front,
    planes: Mapping[int, Planes],
    values: Mapping[Slot, Array],
    sides: Mapping[Slot, Sides] | None = None,
    *,
    mirrored: bool,
) -> Relation:
    """Lower linear bounds, in the program's input, of the rows that `start` gives in some of its slots.

    planes: by number of equation, for each that is not affine between the input and `start`. values: of the slots that
    do not depend on the input. mirrored: the rows' negatives are bounded as well and follow them along O; up to the
    first equation that is not affine both need only one pass.
    """
    walk = _Walk(program, start, values, sides or {}, mirrored)
    for number in reversed(range(len(program.equations))):
        equation = program.equations[number]
        if walk.reached(equation):
            if is_affine(equation, program):
                walk.affine(equation)
            else:
                walk.relaxed(equation, planes[number])
    walk.mirror()
    coefficients = walk.take(program.input)
    return Relation(coefficients, walk.offset - walk.slack)


def affine_part(program: Program, start: Front, values: Mapping[Slot, Array], slack: Collection[Slot] = ()) -> Front:
    """The same rows, exactly, in the slots before the last equations that are not affine, or those whose results have
    `slack`: no relaxation enters."""
    walk = _Walk(program, start, values, {}, mirrored=False)
    for equation in reversed(program.equations):
        if walk.reached(equation):
            if not is_affine(equation, program) or any(slot in slack for slot in equation.outputs):
                break
            walk.affine(equation)
    return Front(walk.coefficients, walk.offset)


class _Walk:
    """The coefficients so far, by slot, while equations are passed backwards."""

    def __init__(self, program, start: Front, values, sides, mirrored):
        self.program, self.values, self.sides = program, values, sides
        self.coefficients, self.offset, self.mirror_next = dict(start.coefficients), start.offset, mirrored
        self.slack = jnp.zeros_like(start.offset)  # taken off a row and its negative alike

    def reached(self, equation: Equation) -> bool:
        return not self.coefficients.keys().isdisjoint(equation.outputs)

    def mirror(self) -> None:
        """From here on every row is followed, along O, by its negative."""
        if self.mirror_next:
            self.coefficients = {slot: co.mirrored(c) for slot, c in self.coefficients.items()}
            self.offset = jnp.concatenate([self.offset, -self.offset], 1)
            self.slack = jnp.concatenate([self.slack, self.slack], 1)
            self.mirror_next = False

    def take(self, slot: Slot) -> Coefficients | None:
        """The coefficients at a slot, with what is to be done there done; they are then to be moved on."""
        sides = self.sides.get(slot)
        if sides is not None and slot in self.coefficients:
            if sides.tilt is not None:
                self.mirror()
                whole = self.whole(self.coefficients[slot], slot)
                self.coefficients[slot] = whole + sides.tilt
            if sides.slack is not None:
                self.slack = self.slack + co.total(co.absolute(self.coefficients[slot]), sides.slack)
        return self.coefficients.pop(slot, None)

    def add(self, slot: Slot, coefficients: Coefficients) -> None:
        known = self.coefficients.get(slot)
        if known is None:
            self.coefficients[slot] = coefficients
            return
        if isinstance(known, Patches) and isinstance(coefficients, Patches):
            joint = windows.added(known, coefficients)
            if joint is not None:
                self.coefficients[slot] = joint
                return
        self.coefficients[slot] = self.whole(known, slot) + self.whole(coefficients, slot)

    def whole(self, coefficients: Coefficients, slot: Slot) -> Array:
        return co.whole(coefficients, self.program.shapes[slot].shape)

    def perturbed(self, equation: Equation) -> list[int]:
        return [i for i, slot in enumerate(equation.inputs) if slot in self.program.perturbed]

    def affine(self, equation: Equation) -> None:
        coefficients = [self.take(slot) for slot in equation.outputs]
        moved = self.perturbed(equation)
        shapes = [self.program.shapes[slot] for slot in equation.inputs]
        fixed = [None if i in moved else self.values[slot] for i, slot in enumerate(equation.inputs)]
        zeros = [jnp.zeros(shapes[i].shape, shapes[i].dtype) for i in moved]

        def function(*operands: Array) -> list[Array]:
            given = dict(zip(moved, operands, strict=True))
            return equation.plain(*[given.get(i, value) for i, value in enumerate(fixed)])

        if len(coefficients) == 1:
            if equation.name in _ADDS_CONSTANTS and (len(moved) < len(shapes) or equation.name == "pad"):
                self.offset = self.offset + co.total(coefficients[0], function(*zeros)[0])
            if equation.name in _ELEMENTWISE:
                for i in moved:
                    slope = _slope(function, zeros, moved.index(i))
                    self.add(equation.inputs[i], co.scaled(coefficients[0], slope))
                return
            shape = shapes[moved[0]].shape
            kernel = fixed[1] if len(fixed) > 1 and moved == [0] else None
            if len(moved) == 1 and self.slid(equation, coefficients[0], kernel, shape):
                return
        self.transposed(equation, function, coefficients, moved, zeros)

    def transposed(self, equation, function, coefficients, moved, zeros) -> None:
        """Any affine equation: its transpose, row by row."""
        _, pull = jax.vjp(function, *zeros)
        rows = self.offset.shape
        whole = []
        for slot, c in zip(equation.outputs, coefficients, strict=True):
            shape = self.program.shapes[slot]
            whole.append(jnp.zeros((*rows, *shape.shape), shape.dtype) if c is None else self.whole(c, slot))
        for i, further in zip(moved, jax.vmap(jax.vmap(pull))(whole), strict=True):
            self.add(equation.inputs[i], further)

    def slid(self, equation: Equation, coefficients: Coefficients, kernel: Array | None, shape: Sequence[int]) -> bool:
        """A sliding equation, of patches or of whole maps; whether it was one."""
        slides = sliding(equation, kernel, shape)
        slot, result = equation.inputs[0], self.program.shapes[equation.outputs[0]].shape
        if slides is None:
            return False
        if isinstance(coefficients, Patches) and slides.axes_out == coefficients.axes:
            further = windows.through(coefficients, result, slides, shape)
            if further is not None:
                self.add(slot, further)
                return True
        rows = self.whole(coefficients, equation.outputs[0])
        moved = whole_map(slides, rows.reshape(-1, *result), shape)
        self.add(slot, moved.reshape(*rows.shape[:2], *shape))
        return True

    def relaxed(self, equation: Equation, planes: Planes) -> None:
        self.mirror()
        (coefficients,) = [self.take(slot) for slot in equation.outputs]
        moved = self.perturbed(equation)
        spread = equation.name in REDUCED
        if spread:
            coefficients = self.whole(coefficients, equation.outputs[0])
        self.offset = self.offset + co.signed_total(coefficients, planes.lower.offset, planes.upper.offset)
        for i, low, high in zip(moved, planes.lower.slopes, planes.upper.slopes, strict=True):
            if low is None:
                continue
            operand = coefficients
            if spread:
                operand = _spread(coefficients, equation, self.program.shapes[equation.inputs[i]].shape)
            self.add(equation.inputs[i], co.signed(operand, low, high))


def _slope(function, zeros: list[Array], which: int) -> Array:
    """The factor of one operand in an element-wise affine function."""
    tangents = [jnp.ones_like(z) if i == which else jnp.zeros_like(z) for i, z in enumerate(zeros)]
    _, slope = jax.jvp(lambda *operands: function(*operands)[0], tuple(zeros), tuple(tangents))
    return slope


def _spread(c: Array, equation: Equation, shape: Sequence[int]) -> Array:
    """Coefficients of a reduction's result, repeated for each operand that it reduces."""
    axes = equation.params["axes"]
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return jnp.broadcast_to(c.reshape(*c.shape[:2], *kept), (*c.shape[:2], *shape))
