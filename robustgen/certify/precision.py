"""A program of float32 numbers as the same program of float64 numbers: the exact function, as far as float64 goes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.certify.interpreter import Equation, Program, bind
from robustgen.core import Array


def doubled(program: Program) -> Program:
    """Its constants and parameters widened, the equations the same. To be used where float64 is enabled.

    Raises `TypeError` unless all real numbers of the program are float32.
    """
    for shape in program.shapes:
        if jnp.issubdtype(shape.dtype, jnp.inexact) and shape.dtype != np.float32:
            raise TypeError(f"rounding is bounded for networks in float32; this one has values in {shape.dtype}")
    constants = {slot: _wide(value, program.shapes[slot].dtype) for slot, value in program.constants.items()}
    shapes = [s.update(dtype=_wide_dtype(s.dtype)) for s in program.shapes]
    equations = tuple(map(_doubled, program.equations))
    return program._replace(constants=constants, equations=equations, shapes=shapes)


def _doubled(equation: Equation) -> Equation:
    """A primitive is bound anew; functions that are kept whole work in any type."""
    params = {name: _wide_param(value) for name, value in equation.params.items()}
    plain = equation.plain
    if isinstance(plain, functools.partial) and plain.func is bind:
        plain = functools.partial(bind, plain.args[0], {k: _wide_param(v) for k, v in plain.args[1].items()})
    return equation._replace(params=params, apply=plain, plain=plain)


def _wide_param(value: Any) -> Any:
    is_dtype = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return _wide_dtype(np.dtype(value)) if is_dtype else value


def _wide_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64) if dtype == np.float32 else dtype


def _wide(value: Any, dtype: np.dtype) -> Array:
    """Exactly the number that the network has: one of Python is rounded to float32 first."""
    if not isinstance(value, jax.Array):
        value = jnp.asarray(value, dtype)
    return value.astype(jnp.float64) if dtype == np.float32 else value
