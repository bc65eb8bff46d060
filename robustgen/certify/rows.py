"""Where a backward pass starts: rows of the identity on a slot, as patches if a convolution made it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify import patches as windows
from robustgen.certify.backward import Coefficients, Front
from robustgen.certify.interpreter import Program, Slot
from robustgen.core import Array

_KEEP_AXES = frozenset("add add_any sub neg mul div copy copy_p convert_element_type".split())


class Start(NamedTuple):
    """Rows of the identity on a slot, in groups: `count` groups of `width` rows each.

    groups(numbers [P]) -> coefficients [P, O = width]; placed: values [B, >= count, O] of all groups in order, as
    [B, *shape]; where(rows [P]) -> (group, member) of rows given as positions in the flat slot.
    """

    count: int
    width: int
    groups: Callable[[Array], Coefficients]
    placed: Callable[[Array], Array]
    where: Callable[[Array], tuple[Array, Array]]


def starts(program: Program, slot: Slot) -> Start:
    """The rows of a slot: patches where a convolution made it."""
    shape, dtype = program.shapes[slot].shape, program.shapes[slot].dtype
    axes = _map_axes(program, slot)
    return _whole(shape, dtype) if axes is None else _windowed(shape, dtype, axes)


def chosen(known: Front, start: Start, rows: Array) -> Front:
    """The front of some rows [P], given as positions in the flat slot, from that of all groups of `start`: O = 1."""
    group, member = start.where(rows)

    def coefficients(c: Coefficients) -> Coefficients:
        if isinstance(c, windows.Patches):
            values = c.values[jnp.minimum(group, c.values.shape[0] - 1), member]
            return dataclasses.replace(c, values=values[:, None], at=c.at[group])
        return c[group, member][:, None]

    return Front(
        {slot: coefficients(c) for slot, c in known.coefficients.items()}, known.offset[group, member][:, None]
    )


def _whole(shape: Sequence[int], dtype: jnp.dtype) -> Start:
    size = math.prod(shape)

    def groups(numbers: Array) -> Array:
        return jax.nn.one_hot(numbers, size, dtype=dtype).reshape(numbers.shape[0], 1, *shape)

    def placed(values: Array) -> Array:
        return values[:, :size, 0].reshape(values.shape[0], *shape)

    return Start(size, 1, groups, placed, lambda rows: (rows, jnp.zeros_like(rows)))


def _windowed(shape: Sequence[int], dtype: jnp.dtype, axes: tuple[int, int, int]) -> Start:
    height, width, channels = (shape[axis] for axis in axes)

    def groups(numbers: Array) -> windows.Patches:
        whole = windows.every(shape, axes, dtype)
        return dataclasses.replace(whole, at=whole.at[numbers])

    def placed(values: Array) -> Array:
        maps = values[:, : height * width].reshape(values.shape[0], height, width, channels)
        order = sorted(range(3), key=lambda i: axes[i])
        return jnp.transpose(maps, (0, *(1 + i for i in order))).reshape(values.shape[0], *shape)

    def where(rows: Array) -> tuple[Array, Array]:
        position = [p.astype(jnp.int32) for p in jnp.unravel_index(rows, tuple(shape))]
        return position[axes[0]] * width + position[axes[1]], position[axes[2]]

    return Start(height * width, channels, groups, placed, where)


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
