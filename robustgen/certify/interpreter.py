"""Any JAX function as a flat list of primitive equations, and its evaluation under rules of one's own.

This, `building` and `calls` are the only places of robustgen that read JAX's intermediate representation (jax 0.10 to
0.12):

    program = trace(fn, x)                                     what fn does to x, calls inlined, loops unrolled
    evaluate(program, {program.input: value}, slots, rules)    values may be arrays, intervals, ...

Rules are looked up by primitive name in a plain mapping, so a new one is `{**RULES, "name": rule}` and no registry.
Whatever does not depend on the perturbed input is computed exactly, by the primitive itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from robustgen.certify.building import Builder, needed
from robustgen.certify.building import Equation as Equation
from robustgen.certify.building import Rewrite as Rewrite
from robustgen.certify.building import Slot as Slot
from robustgen.certify.building import bind as bind
from robustgen.core import Array, Interval


class Program(NamedTuple):
    """A traced function of one array: equations in order of execution, over numbered slots.

    `perturbed` are the slots that depend on the input; `shapes` tells the shape and dtype of each slot.
    """

    input: Slot
    output: Slot
    constants: Mapping[Slot, Array]
    equations: tuple[Equation, ...]
    perturbed: frozenset[Slot]
    shapes: Sequence[jax.ShapeDtypeStruct]


Rule = Callable[..., Any]
"""`rule(equation, *operands) -> value`, or a list of values where the primitive has several outputs. An operand is an
array where it is exact, and an `Interval` (or whatever the rules work with) where it depends on the input."""


class UnknownPrimitive(LookupError):
    """A primitive of the traced function has no rule, or is used in a way that its rule does not cover."""

    def __init__(self, name: str, reason: str = "has no rule"):
        where = f"rules={{**robustgen.certify.RULES, {name!r}: rule}}"
        super().__init__(f"primitive {name!r} {reason}: give one as {where}")
        self.name = name


def trace(
    fn: Callable[[Array], Array],
    x: Array,
    whole: Iterable[tuple[str, Callable]] = (),
    rewrites: Mapping[str, Rewrite] = MappingProxyType({}),
) -> Program:
    """The program of `fn` at the shape and dtype of `x` (an array or a `ShapeDtypeStruct`).

    Matrix products and convolutions of perturbed values are traced at the highest precision, so that TF32 and bfloat16
    passes never enter a bound. What is, equation for equation, one of the functions in `whole` becomes a single
    equation of that name, with the keywords of its `functools.partial` for parameters, be it a call or written out.
    Then equations named in `rewrites` are replaced. Raises `TypeError` unless `fn` returns one array.
    """
    with jax.default_matmul_precision("highest"):
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(x)
        if not isinstance(shape, jax.ShapeDtypeStruct):
            raise TypeError(f"the bounded function must return one array; it returned {jax.tree.structure(shape)}")
        builder = Builder(tuple(whole))
        start = builder.slot(x, perturbed=True)
        (output,) = builder.inline(jaxpr, [start])
        builder.fuse(start, output)
        while names := builder.rewritten(rewrites):
            output = names.get(output, output)
            builder.fuse(start, output)
    return Program(
        start, output, builder.constants, tuple(builder.equations), frozenset(builder.perturbed), builder.shapes
    )


def evaluate(
    program: Program, known: Mapping[Slot, Any], wanted: Sequence[Slot], rules: Mapping[str, Rule] | None = None
) -> list[Any]:
    """The values of the `wanted` slots, given those of `known` ones. Equations they do not need are skipped.

    Where all operands of an equation are arrays it is computed exactly; elsewhere by its rule. Raises
    `UnknownPrimitive` where `rules` has none.
    """
    values = {**program.constants, **known}
    for equation in needed(program.equations, known, wanted):
        operands = [values[slot] for slot in equation.inputs]
        if not any(isinstance(operand, Interval) for operand in operands):
            results = equation.apply(*operands)
        elif rules is None or equation.name not in rules:
            raise UnknownPrimitive(equation.name)
        else:
            results = rules[equation.name](equation, *operands)
        values.update(zip(equation.outputs, results if isinstance(results, list) else [results], strict=True))
    return [values[slot] for slot in wanted]
