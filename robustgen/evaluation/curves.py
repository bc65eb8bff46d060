"""Robust and certified against the radius of the threat set, over one evaluation of many radii in one compile."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import VERIFIED, Array, Attack, Certifier, Key, LogitsFn, Net
from robustgen.evaluation.columns import ContradictionError, Progress, judge
from robustgen.knobs import Count, KnobError, checked


class Curve(NamedTuple):
    """eps [E] ascending; robust, certified: bool [E, N] (or [num_nets, E, N]); certified None if not asked for."""

    eps: np.ndarray
    robust: np.ndarray
    certified: np.ndarray | None


@checked
def curve(
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    *,
    attack_at: Callable[[Array], Attack],
    certifier_at: Callable[[Array], Certifier] | None,
    eps: Sequence[float],
    key: Key,
    batch_size: Count,
    num_nets: Count | None = None,
    progress: Progress = lambda done, total: None,
) -> Curve:
    """Which examples hold at each radius: broken at one radius stays broken at every larger one, certified at one stays
    certified at every smaller one, so that both curves fall. A misclassified example is robust at no radius.

    `attack_at(eps)` and `certifier_at(eps)` are called with a traced float32, rounded inward. Raises `KnobError` unless
    `eps` ascends from 0 or more, and `ContradictionError` where an example is certified at a radius that breaks it.
    """
    grid = np.asarray(eps, np.float64)
    if grid.ndim != 1 or len(grid) == 0 or not (grid[0] >= 0 and np.all(np.diff(grid) > 0) and np.isfinite(grid[-1])):
        raise KnobError("eps", f"must ascend from a radius >= 0; got {list(eps)}")
    step = _step(attack_at, certifier_at, num_nets is not None)
    net = net if isinstance(net, Net) else jax.tree_util.Partial(net)
    chunks = []
    for done, valid, args in _batches(x, y, key, batch_size):
        found = [jax.device_get(step(net, *args, radius)) for radius in _round_down(grid)]
        chunks.append(jax.tree.map(lambda *rows: np.stack(rows, -2)[..., :valid], *found))  # noqa: B023
        progress(done, len(y))
    holds, proved = jax.tree.map(lambda *parts: np.concatenate(parts, -1), *chunks)
    robust = np.logical_and.accumulate(holds, -2)
    certified = np.flip(np.logical_or.accumulate(np.flip(proved, -2), -2), -2)
    clash = np.argwhere(certified & ~robust)
    if len(clash):
        row = clash[0]
        raise ContradictionError(
            f"{len(clash)} times certified and yet broken; first at eps {grid[row[-2]]:g}, index {row[-1]}"
        )
    return Curve(grid, robust, None if certifier_at is None else certified)


def _step(attack_at: Callable, certifier_at: Callable | None, population: bool) -> Callable:
    def step(net: LogitsFn, x: Array, y: Array, keys: Key, eps: Array) -> tuple[Array, Array]:
        clean = judge(net, x, y)["prediction"] == y
        x_adv = attack_at(eps)(net, x, y, keys)
        holds = clean & (judge(net, x_adv, y)["prediction"] == y)
        if certifier_at is None:
            return holds, jnp.zeros_like(holds)
        return holds, certifier_at(eps)(net, x, y, keys).status == VERIFIED

    return jax.jit(jax.vmap(step, (0, None, None, None, None)) if population else step)


def _batches(x: np.ndarray, y: np.ndarray, key: Key, batch_size: int) -> Iterator[tuple[int, int, tuple]]:
    """(examples done, how many of this batch count, (x, y, keys)), in batches of one shape."""
    for start in range(0, len(y), batch_size):
        rows = np.arange(start, start + batch_size) % len(y)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        done = min(start + batch_size, len(y))
        yield done, done - start, (jnp.asarray(x[rows]), jnp.asarray(y[rows]), keys)


def _round_down(eps: np.ndarray) -> np.ndarray:
    """The largest float32 not above each radius (a traced radius is used as it is)."""
    rounded = eps.astype(np.float32)
    return np.where(rounded.astype(np.float64) > eps, np.nextafter(rounded, np.float32(-1)), rounded)
