"""Coefficients of a linear relation at a slot: an array [P, O, *shape] or `Patches`, and what is done with either."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from robustgen.certify import patches as windows
from robustgen.certify.patches import Patches
from robustgen.core import Array

Coefficients = Array | Patches


def numbers(c: Coefficients) -> Array:
    """The coefficients themselves."""
    return c.values if isinstance(c, Patches) else c


def like(c: Coefficients, values: Array) -> Coefficients:
    """Other numbers at the same places."""
    return dataclasses.replace(c, values=values) if isinstance(c, Patches) else values


def mirrored(c: Coefficients) -> Coefficients:
    """Every row followed, along O, by its negative."""
    return like(c, jnp.concatenate([numbers(c), -numbers(c)], 1))


def absolute(c: Coefficients) -> Coefficients:
    """Their sizes."""
    return like(c, jnp.abs(numbers(c)))


def whole(c: Coefficients, shape: Sequence[int]) -> Array:
    """[P, O, *shape]."""
    return windows.dense(c, shape) if isinstance(c, Patches) else c


def scaled(c: Coefficients, slope: Array) -> Coefficients:
    """Times an array [*shape], element by element."""
    return windows.scaled(c, slope) if isinstance(c, Patches) else c * slope


def signed(c: Coefficients, low: Array, high: Array) -> Coefficients:
    """Times `low` where they are positive, `high` where negative: slopes of the lower and the upper plane."""
    if isinstance(c, Patches):
        low, high = windows.under(c, low), windows.under(c, high)
    values = numbers(c)
    return like(c, values * jnp.where(values > 0, low, high))


def signed_total(c: Coefficients, low: Array, high: Array) -> Array:
    """The sum of `signed`, per row [P, O]; where a coefficient is zero nothing is added, infinite or not."""
    if isinstance(c, Patches):
        low, high = windows.under(c, low), windows.under(c, high)
    values = numbers(c)
    axes = tuple(range(2, values.ndim))
    return jnp.sum(jnp.where(values != 0, values * jnp.where(values > 0, low, high), 0), axes)


def total(c: Coefficients, array: Array) -> Array:
    """The sum of coefficients times an array [*shape], per row [P, O]."""
    if isinstance(c, Patches):
        return windows.total(c, array)
    return jnp.sum(jnp.where(c != 0, c * array, 0), tuple(range(2, c.ndim)))
