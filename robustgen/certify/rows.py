"""Where a backward pass starts: rows of the identity on a slot, as patches if a convolution made it."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify import patches as windows
from robustgen.certify.backward import Coefficients
from robustgen.certify.interpreter import Program, Slot
from robustgen.core import Array

_KEEP_AXES = frozenset("add add_any sub neg mul div copy copy_p convert_element_type".split())


class Start(NamedTuple):
    """Rows of the identity on a slot.

    all(numbers [P]) -> coefficients [P, O = width]: whole groups of rows, `count` there are; placed: bounds
    [B, >= count, O] of them all, in order, as [B, *shape]. some(rows [P]) -> coefficients [P, 1]: any rows, as
    positions in the flat slot.
    """

    count: int
    width: int
    all: Callable[[Array], Coefficients]
    some: Callable[[Array], Coefficients]
    placed: Callable[[Array], Array]


def starts(program: Program, slot: Slot) -> Start:
    """The starts at a slot."""
    shape, dtype = program.shapes[slot].shape, program.shapes[slot].dtype
    axes = _map_axes(program, slot)
    return _whole(shape, dtype) if axes is None else _windowed(shape, dtype, axes)


def _whole(shape, dtype) -> Start:
    size = math.prod(shape)

    def some(rows: Array) -> Array:
        return jax.nn.one_hot(rows, size, dtype=dtype).reshape(rows.shape[0], 1, *shape)

    return Start(size, 1, some, some, lambda v: v[:, :size, 0].reshape(v.shape[0], *shape))


def _windowed(shape, dtype, axes) -> Start:
    height, width, channels = (shape[axis] for axis in axes)

    def all_of(numbers: Array) -> windows.Patches:
        whole = windows.every(shape, axes, dtype)
        return dataclasses.replace(whole, at=whole.at[numbers])

    def placed(v: Array) -> Array:
        maps = v[:, : height * width].reshape(v.shape[0], height, width, channels)
        order = sorted(range(3), key=lambda i: axes[i])
        return jnp.transpose(maps, (0, *(1 + i for i in order))).reshape(v.shape[0], *shape)

    def some(rows: Array) -> windows.Patches:
        return windows.some(rows, shape, axes, dtype)

    return Start(height * width, channels, all_of, some, placed)


def _map_axes(program: Program, slot: Slot) -> tuple[int, int, int] | None:
    """Where the rows, columns and channels of the convolution lie that made a slot; None where none did."""
    made = {out: equation for equation in program.equations for out in equation.outputs}
    while slot in made:
        equation = made[slot]
        moved = [s for s in equation.inputs if s in program.perturbed]
        if equation.name == "conv_general_dilated":
            numbers = equation.params["dimension_numbers"]
            plain = len(numbers.out_spec) == 4 and program.shapes[slot].shape[numbers.out_spec[0]] == 1
            return (*numbers.out_spec[2:], numbers.out_spec[1]) if plain and len(moved) == 1 else None
        if equation.name not in _KEEP_AXES or not moved:
            return None
        slot = moved[0]
    return None
