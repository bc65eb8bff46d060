"""What a VNN-LIB property says: boxes of inputs, and which outputs over them would violate it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from robustgen.core import Array


class Clause(NamedTuple):
    """The outputs v with A v <= b in every row; A [rows, outputs] and b [rows], float64. No rows: all outputs."""

    A: np.ndarray
    b: np.ndarray


class Box(NamedTuple):
    """The inputs lower <= x <= upper, [inputs] float64, and the clauses of which one over them is a violation."""

    lower: np.ndarray
    upper: np.ndarray
    clauses: tuple[Clause, ...]


class Property(NamedTuple):
    """A property is *violated* (sat) where, for some box and some clause of it, an x in the box has A v <= b.

    v is `observe(f)(x)`: the outputs y = f(x) and, after them, those inputs that constraints compare with each other or
    with outputs (`watched`, none in most files). So a verifier bounds `observe(f)` and needs no case for mixed
    constraints. x and y are flat, in row-major order of the model's input and output.
    """

    num_inputs: int
    num_outputs: int
    boxes: tuple[Box, ...]
    watched: tuple[int, ...] = ()

    def observe(self, f: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """v [num_outputs + len(watched)] as a function of x [num_inputs], given f: x -> y [num_outputs]."""
        if not self.watched:
            return f
        indices = np.array(self.watched)
        return lambda x: jnp.concatenate([f(x), x[indices]])


def violates(property: Property, x: np.ndarray, y: np.ndarray, *, tolerance: float) -> bool:
    """Whether x [num_inputs] with outputs y [num_outputs] is a counterexample, compared in float64.

    `tolerance` is how far x may be outside a box and A v above b; 0 for an exact check.
    """
    x, y = np.asarray(x, np.float64).reshape(-1), np.asarray(y, np.float64).reshape(-1)
    seen = np.concatenate([y, x[list(property.watched)]])
    return any(
        np.all((x >= box.lower - tolerance) & (x <= box.upper + tolerance))
        and any(np.all(clause.A @ seen <= clause.b + tolerance) for clause in box.clauses)
        for box in property.boxes
    )
