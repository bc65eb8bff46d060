"""Where a program can be split: operands of the element-wise equations that are not affine, and at which values."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from robustgen.certify.affine import is_affine
from robustgen.certify.interpreter import Equation, Program, Slot, trace
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.rewrites import REWRITES
from robustgen.certify.rules import WHOLE
from robustgen.core import Array, LogitsFn

_AT_ZERO = frozenset("abs leaky leaky_relu elu selu celu".split())
_RAMPS: Mapping[str, tuple[float, float]] = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}
_PIECEWISE_LINEAR = frozenset("max min abs leaky leaky_relu relu6 hard_tanh clamp".split())
_LARGEST_TREE = 64


class Site(NamedTuple):
    """A slot that may be split, and the numbers of the equations that split gains from."""

    slot: Slot
    equations: tuple[int, ...]


def splittable(fn: LogitsFn, shape: Sequence[int], dtype: jnp.dtype) -> Program:
    """The program of `fn` [B, *shape] -> [B, K] on one row, each maximum as b + relu(a - b), which can be split."""
    rewrites = {
        **REWRITES,
        "max": _max,
        "min": _min,
        "reduce_max": _reduce(jnp.maximum),
        "reduce_min": _reduce(jnp.minimum),
    }
    return trace(lambda row: fn(row[None])[0], jax.ShapeDtypeStruct(tuple(shape), dtype), WHOLE, rewrites)


def sites(program: Program) -> tuple[Site, ...]:
    """All sites, in the order of the program. Empty where nothing but the input can be split."""
    found: dict[Slot, list[int]] = {}
    for number, equation in enumerate(program.equations):
        moved = [slot for slot in equation.inputs if slot in program.perturbed]
        if moved and not is_affine(equation, program) and _element_wise(equation, moved, program):
            found.setdefault(moved[0], []).append(number)
    return tuple(Site(slot, tuple(numbers)) for slot, numbers in found.items())


def is_piecewise_linear(program: Program) -> bool:
    """Whether enough splits make the function linear, so that what is left is decided exactly."""
    known = {number for site in sites(program) for number in site.equations}
    return all(
        is_affine(equation, program) or (number in known and equation.name in _PIECEWISE_LINEAR)
        for number, equation in enumerate(program.equations)
        if program.perturbed.intersection(equation.inputs)
    )


def points(
    program: Program, site: Site, values: Mapping[Slot, Array], lower: Array, upper: Array
) -> tuple[Array, Array]:
    """Where to split intervals [B, *shape], and which there is still something to split in (both [B, *shape]).

    At a kink strictly inside; smooth functions in the middle, until the interval is all but a point.
    """
    kinks, smooth = [], False
    for number in site.equations:
        found = _kinks(program.equations[number], values, program)
        kinks.extend(found)
        smooth = smooth or not found
    point, inside = (lower + upper) / 2, jnp.zeros(lower.shape, bool)
    if smooth:
        inside = upper - lower > 1e-5 * (1 + jnp.abs(lower) + jnp.abs(upper))
    for kink in kinks:
        kink = jnp.broadcast_to(kink, lower.shape).astype(lower.dtype)
        within = (lower < kink) & (kink < upper)
        point, inside = jnp.where(within, kink, point), inside | within
    return point, inside


def _element_wise(equation: Equation, moved: list[Slot], program: Program) -> bool:
    same = len(set(moved)) == 1 and program.shapes[equation.outputs[0]].shape == program.shapes[moved[0]].shape
    return same and len(equation.outputs) == 1 and equation.name in RELAXATIONS


def _kinks(equation: Equation, values: Mapping[Slot, Array], program: Program) -> list[Array]:
    """Where the function of an equation has a kink; nothing for smooth functions."""
    if equation.name in _AT_ZERO:
        return [jnp.zeros(())]
    if equation.name in _RAMPS:
        return [jnp.asarray(kink) for kink in _RAMPS[equation.name]]
    if equation.name in ("max", "min", "clamp"):
        return [values[slot] for slot in equation.inputs if slot not in program.perturbed]
    return []


def _max(params, shapes, perturbed) -> Callable | None:
    return (lambda a, b: b + jnp.maximum(a - b, 0)) if all(perturbed) else None


def _min(params, shapes, perturbed) -> Callable | None:
    return (lambda a, b: b - jnp.maximum(b - a, 0)) if all(perturbed) else None


def _reduce(pair: Callable) -> Callable:
    def rewrite(params, shapes, perturbed) -> Callable | None:
        """A tree of pairwise maxima: looser at first than the maximum as a whole, but it can be split."""
        (axis, *others) = params["axes"]
        if others or shapes[0].shape[axis] > _LARGEST_TREE:
            return None

        def tree(x: Array) -> Array:
            parts = [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
            while len(parts) > 1:
                parts = [pair(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
            return parts[0]

        return tree

    return rewrite
