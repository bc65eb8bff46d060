"""The equations of a program, collected while JAX's intermediate representation is walked, for `interpreter.trace`."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify import calls
from robustgen.certify.patterns import Pattern, occurrences
from robustgen.core import Array

Slot = int


class Equation(NamedTuple):
    """One primitive. `apply(*arrays) -> list of arrays` computes it exactly; slots tell where values lie.

    `plain` computes the same. It differs from `apply` only where the function has a `custom_vjp` around a single
    product, whose derivative `apply` keeps (it may be the fast one) and `plain` does not (it may not be the true one).
    """

    name: str
    params: Mapping[str, Any]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    apply: Callable[..., list[Array]]
    plain: Callable[..., list[Array]]


Rewrite = Callable[[Mapping[str, Any], Sequence[jax.ShapeDtypeStruct], Sequence[bool]], Callable | None]
"""`rewrite(params, shapes of the operands, which are perturbed) -> function of the operands to trace in the equation's
place`, or None to leave it."""


class Builder:
    """Collects the equations of a program while its jaxpr is walked."""

    def __init__(self, whole: tuple[tuple[str, Callable], ...]):
        self.whole, self.equations, self.constants = whole, [], {}
        self.perturbed: set[Slot] = set()
        self.shapes: list[jax.ShapeDtypeStruct] = []

    def slot(self, aval, perturbed: bool) -> Slot:
        self.shapes.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        if perturbed:
            self.perturbed.add(len(self.shapes) - 1)
        return len(self.shapes) - 1

    def constant(self, value) -> Slot:
        slot = self.slot(jax.typeof(value), perturbed=False)
        self.constants[slot] = value
        return slot

    def inline(self, jaxpr, args: Sequence[Slot]) -> list[Slot]:
        """Adds the equations of a jaxpr (closed or open, whatever this jax calls it); returns its outputs' slots."""
        inner, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
        slots = dict(zip(inner.constvars, map(self.constant, consts), strict=True))
        slots.update(zip(inner.invars, args, strict=True))

        def read(atom) -> Slot:
            return self.constant(atom.val) if hasattr(atom, "val") else slots[atom]

        for eqn in inner.eqns:
            outputs = self.add(eqn, [read(atom) for atom in eqn.invars])
            slots.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def add(self, eqn, args: list[Slot]) -> list[Slot]:
        name = eqn.primitive.name
        if not self.perturbed.intersection(args):
            return self.record(name, eqn, args)
        if name in calls.CALLS:
            if known := calls.recognised(eqn, self.whole):
                self.record(known[0], eqn, args)
                self.equations[-1] = self.equations[-1]._replace(params=_keywords(known[1]))
                return list(self.equations[-1].outputs)
            if product := calls.only_product(eqn):
                return self.record(product.primitive.name, product, args, _apply(eqn.primitive, eqn.params))
            return self.inline(calls.body(eqn), args)
        if name == "scan":
            return self.unroll(eqn, args)
        if name == "cond":
            branches = [self.inline(branch, args[1:]) for branch in eqn.params["branches"]]
            return [self.call(_choose, args[0], *cases) for cases in zip(*branches, strict=True)]
        return self.record(name, eqn, args)

    def record(self, name: str, eqn, args: list[Slot], apply: Callable[..., list[Array]] | None = None) -> list[Slot]:
        perturbed = bool(self.perturbed.intersection(args))
        params = dict(eqn.params)
        if perturbed and name in calls.PRODUCTS:
            params["precision"] = calls.HIGHEST
        outputs = [self.slot(var.aval, perturbed) for var in eqn.outvars]
        plain = _apply(eqn.primitive, params)
        self.equations.append(Equation(name, params, tuple(args), tuple(outputs), apply or plain, plain))
        return outputs

    def fuse(self, start: Slot, output: Slot) -> None:
        """Puts one equation in the place of each function in `whole` that JAX wrote out, and drops what is not used."""
        self.equations = needed(self.equations, [start], [output])
        present = {equation.name for equation in self.equations}
        for name, fn in self.whole:
            if _primitives(fn) <= present:
                pattern = functools.partial(_pattern, fn, jax.config.jax_enable_x64)
                for found in occurrences(pattern, self.equations, self.constants, self.perturbed, self.shapes):
                    self.equations[found.root] = self.equations[found.root]._replace(
                        name=name,
                        params=_keywords(fn),
                        inputs=found.arguments,
                        apply=lambda *args, fn=fn: [fn(*args)],
                        plain=lambda *args, fn=fn: [fn(*args)],
                    )
        self.equations = needed(self.equations, [start], [output])

    def rewritten(self, rewrites: Mapping[str, Rewrite]) -> dict[Slot, Slot]:
        """Replaces the equations that `rewrites` takes apart; returns the new slots of their results."""
        equations, self.equations, names = self.equations, [], {}
        for equation in equations:
            inputs = tuple(names.get(slot, slot) for slot in equation.inputs)
            moved = [slot in self.perturbed for slot in inputs]
            shapes = [self.shapes[slot] for slot in inputs]
            fn = (
                rewrites[equation.name](equation.params, shapes, moved)
                if equation.name in rewrites and any(moved)
                else None
            )
            if fn is None:
                self.equations.append(equation._replace(inputs=inputs))
            else:
                names.update(zip(equation.outputs, self.inline(jax.make_jaxpr(fn)(*shapes), inputs), strict=True))
        return names

    def call(self, fn: Callable, *args: Slot) -> Slot:
        """Adds what a function of one result does to the values in `args`; returns its slot."""
        return self.inline(jax.make_jaxpr(fn)(*(self.shapes[slot] for slot in args)), args)[0]

    def unroll(self, eqn, args: list[Slot]) -> list[Slot]:
        """Adds every step of a scan, so that loop counters and unperturbed carries stay exact."""
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        inner = getattr(body, "jaxpr", body)
        # counted by rank, since the parameters that hold these numbers differ between versions of jax
        num_xs = sum(self.shapes[a].ndim != v.aval.ndim for a, v in zip(args, inner.invars, strict=True))
        num_ys = sum(o.aval.ndim != v.aval.ndim for o, v in zip(eqn.outvars, inner.outvars, strict=True))
        num_carry = len(eqn.outvars) - num_ys
        fixed, xs = args[: len(args) - num_xs], args[len(args) - num_xs :]
        consts, carry = fixed[: len(fixed) - num_carry], fixed[len(fixed) - num_carry :]
        steps = []
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            rows = [self.call(lambda a, i=i: jax.lax.index_in_dim(a, i, keepdims=False), x) for x in xs]
            outputs = self.inline(body, [*consts, *carry, *rows])
            carry, ys = outputs[:num_carry], outputs[num_carry:]
            steps.append(ys)
        ordered = zip(*(steps[::-1] if eqn.params["reverse"] else steps), strict=True)
        return [*carry, *(self.call(lambda *rows: jnp.stack(rows), *column) for column in ordered)]


def _keywords(fn: Callable) -> Mapping[str, Any]:
    """The parameters of an equation that stands for a function."""
    return fn.keywords if isinstance(fn, functools.partial) else {}


@functools.cache
def _pattern(fn: Callable, x64: bool, shape: tuple[int, ...], dtype: Any) -> Pattern | None:
    """The equations of `fn` of a perturbed array and of any exact scalars that it takes; None if it does not apply."""
    given = inspect.signature(fn).parameters.values()
    number = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in given)
    shapes = [jax.ShapeDtypeStruct(shape, dtype), *[jax.ShapeDtypeStruct((), dtype)] * (number - 1)]
    try:
        jaxpr = jax.make_jaxpr(fn)(*shapes)
    except (TypeError, ValueError, IndexError):
        return None
    builder = Builder(())
    inputs = tuple(builder.slot(s, perturbed=not i) for i, s in enumerate(shapes))
    (output,) = builder.inline(jaxpr, inputs)
    return Pattern(inputs, output, needed(builder.equations, inputs, [output]), builder.constants)


@functools.cache
def _primitives(fn: Callable) -> frozenset[str]:
    """The names of the primitives that `fn` is made of, to pass over what cannot be found."""
    pattern = _pattern(fn, jax.config.jax_enable_x64, (2, 2, 2, 2), jnp.dtype(jnp.float32))
    return frozenset(equation.name for equation in pattern.equations) if pattern else frozenset()


def _choose(index: Array, *cases: Array) -> Array:
    """What `lax.cond` does with its branches' results: an index outside their range takes the nearest."""
    result = cases[0]
    for i, case in enumerate(cases[1:], 1):
        result = jnp.where(index >= i, case, result)
    return result


def needed(equations: Sequence[Equation], known: Iterable[Slot], wanted: Iterable[Slot]) -> list[Equation]:
    """Those between `known` slots and `wanted` ones, in order."""
    known, missing, kept = set(known), set(wanted), []
    for equation in reversed(equations):
        if missing.difference(known).intersection(equation.outputs):
            missing.update(equation.inputs)
            kept.append(equation)
    return kept[::-1]


def _apply(primitive, params: Mapping[str, Any]) -> Callable[..., list[Array]]:
    return functools.partial(bind, primitive, params)


def bind(primitive: Any, params: Mapping[str, Any], *args: Array) -> list[Array]:
    """What a primitive gives for arrays."""
    results = primitive.bind(*args, **primitive.get_bind_params(dict(params)))
    return list(results) if primitive.multiple_results else [results]
