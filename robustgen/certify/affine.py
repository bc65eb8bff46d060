"""The last affine segment of a program, so that a specification can be composed with it before bounds are taken."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.interpreter import Equation, Program, Slot, evaluate
from robustgen.core import Array

_JOINTLY = frozenset(
    """add add_any sub neg reshape transpose broadcast_in_dim slice squeeze rev split copy copy_p expand_dims
    concatenate stack unstack tile pad reduce_sum cumsum reduce_window_sum""".split()
)
_IN_ONE = frozenset("mul dot_general conv_general_dilated".split())
_IN_FIRST = frozenset("div gather dynamic_slice".split())


class Segment(NamedTuple):
    """`apply(leaves: list of arrays) -> output`, affine in the values at the slots `leaves` jointly."""

    leaves: tuple[Slot, ...]
    apply: Callable[[list[Array]], Array]


def last_segment(program: Program) -> Segment:
    """The longest affine tail of `program`: its leaves are the input or results of equations that are not affine.

    stop_gradient is not affine here: transposing it would lose its part of the output.
    """
    affine = {slot: eqn for eqn in program.equations for slot in eqn.outputs if is_affine(eqn, program)}
    leaves, seen, todo = [], set(), [program.output]
    while todo:
        slot = todo.pop()
        if slot in seen or slot not in program.perturbed:
            continue
        seen.add(slot)
        if slot in affine:
            todo.extend(affine[slot].inputs)
        else:
            leaves.append(slot)

    exact = program._replace(equations=tuple(eqn._replace(apply=eqn.plain) for eqn in program.equations))

    def apply(values: list[Array]) -> Array:
        return evaluate(exact, dict(zip(leaves, values, strict=True)), [program.output])[0]

    return Segment(tuple(leaves), apply)


def is_affine(equation: Equation, program: Program) -> bool:
    """Whether an equation is affine in its perturbed operands together."""
    moved = [slot in program.perturbed for slot in equation.inputs]
    if equation.name in _IN_ONE:
        return sum(moved) == 1
    if equation.name in _IN_FIRST:
        return moved[0] and not any(moved[1:])
    if equation.name == "select_n":
        return not moved[0]
    return equation.name in _JOINTLY


def jacobian(segment: Segment, program: Program) -> list[Array]:
    """The linear part of a segment with output [K]: one array [K, *leaf.shape] per leaf."""
    shapes = [program.shapes[slot] for slot in segment.leaves]
    output = program.shapes[program.output]
    zeros = [jnp.zeros(s.shape, s.dtype) for s in shapes]
    _, pull = jax.vjp(segment.apply, zeros)
    return jax.vmap(pull)(jnp.eye(output.shape[0], dtype=output.dtype))[0]
