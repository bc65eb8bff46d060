"""Counterexamples: a search for them, and the check that decides."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.certify.branch.domains import Claims
from robustgen.certify.branch.method import in_float64, violation
from robustgen.core import Array, Key, LogitsFn, Threat
from robustgen.knobs import Count, Positive, checked


class Found(NamedTuple):
    """The member x [*shape] of a set at which a claim fails, and its largest row there (not positive)."""

    claim: int
    x: np.ndarray
    worst: float


Descend = Callable[[LogitsFn, Claims, Array], tuple[Array, Array]]
"""(fn, claims [N], x [N, ...] to start from) -> members x of the sets, and the largest row of each claim there."""


@checked
def descents(threat: Threat, *, num_steps: Count, step_size: Positive) -> Descend:
    """The x with the smallest worst row on each path, and that row.

    `num_steps` of the steepest descent that the threat has, from `step_size` (a fraction of the box, linearly to zero).
    """

    def run(fn: LogitsFn, claims: Claims, x: Array) -> tuple[Array, Array]:
        width = claims.upper - claims.lower

        def step(i: Array, carry: tuple) -> tuple:
            x, best, least = carry
            rows, pull = jax.vjp(lambda v: violation(fn, claims, v), x)
            (gradient,) = pull(jnp.ones_like(rows))
            best, least = _better(best, least, x, rows)
            move = step_size * (1 - i / num_steps)
            return projected(threat, claims, x - _direction(threat, gradient, width) * move), best, least

        start = projected(threat, claims, x)
        x, best, least = jax.lax.fori_loop(0, num_steps, step, (start, start, jnp.full(x.shape[:1], jnp.inf)))
        return _better(best, least, x, violation(fn, claims, x))

    return jax.jit(run)


def _better(best: Array, least: Array, x: Array, rows: Array) -> tuple[Array, Array]:
    wins = rows < least
    return jnp.where(wins.reshape(-1, *(1,) * (x.ndim - 1)), x, best), jnp.where(wins, rows, least)


def projected(threat: Threat, claims: Claims, x: Array) -> Array:
    """The nearest members of the claims' sets."""
    return jnp.clip(x if threat.is_box else threat.project(claims.x, x), claims.lower, claims.upper)


def _direction(threat: Threat, gradient: Array, width: Array) -> Array:
    """The steepest step in a set of about the size of its box."""
    if threat.is_box:
        return width * jnp.sign(gradient)
    return threat.ascend(gradient, 1.0) * jnp.max(width) / 2


def starts_in(claims: Claims, key: Key) -> Array:
    """Random points of the claims' boxes, half of them corners."""
    spread, corner = jax.random.split(key)
    u = jax.random.uniform(spread, claims.x.shape, claims.x.dtype)
    rounded = jax.random.bernoulli(corner, 0.5, (claims.x.shape[0], *(1,) * (claims.x.ndim - 1)))
    return claims.lower + jnp.where(rounded, jnp.round(u), u) * (claims.upper - claims.lower)


def confirmed(fn: LogitsFn, threat: Threat, claims: Claims, claim: int, x: np.ndarray) -> np.ndarray | None:
    """The float32 member next to x, if it refutes a claim in float32 and in float64, on the function itself; else None.

    `claims` are those asked (float64 where they were), not those rounded for the search: the member is inside their box
    when compared in float64, and of the set as its threat projects.
    """
    one = claims.rows(np.array([claim]))
    narrow = Claims(*(np.asarray(f, np.float32) for f in one[:5]), one.group)
    point = np.asarray(x if threat.is_box else projected(threat, narrow, jnp.asarray(x)[None])[0], np.float32)
    point = point + np.float32(0)  # no -0.0, which files would show
    if not (np.all(point >= one.lower[0]) and np.all(point <= one.upper[0])):
        return None
    A, b = np.asarray(one.A[0], np.float64), np.asarray(one.b[0], np.float64)

    def fails(values: Array) -> bool:
        values = np.asarray(values, np.float64).reshape(-1)
        return bool(np.all(np.isfinite(values)) and np.all(A @ values <= b))

    if not fails(fn(jnp.asarray(point)[None])):
        return None
    with jax.enable_x64(True):
        return point if fails(in_float64(fn)(jnp.asarray(point, jnp.float64)[None])) else None
