"""APGD in the L1 ball: sparse sign steps whose width follows the best point. Croce & Hein 2021 (arXiv 2103.01208),
algorithm 1 and section 3.

As in the official code (`autopgd_base.py` at commit a392200), against `apgd`: no momentum; a check, every 4 % of the
steps, counts the features that the best point changes. Where they have become fewer than 95 %, the run goes back to it
with a step of one radius, else the step is divided by 1.5, down to a tenth; the next steps move two thirds as many
features as it changes. Deviations:
- A feature counts as changed where it differs from x; there x + shift - shift is rounded, and more of them may count.
- How many features to move is computed in whole numbers, where that code rounds shares in float32.
- The first start is x + N(0, 1), projected onto the first radius; with `SHRINKING` that code projects twice, the first
  time with x counted as part of the change.
- As in `apgd`, no run is continued once its example is broken, which the caller decides.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from robustgen.attacks.apgd import slope
from robustgen.attacks.objectives import targeted_dlr
from robustgen.attacks.search import Item, Search, Tried
from robustgen.attacks.starts import gaussian
from robustgen.core import Array, LogitsFn, Objective
from robustgen.knobs import Count, NonNegative, checked
from robustgen.threats import l1
from robustgen.threats.geometry import Clip, per_example, round_down
from robustgen.threats.selection import largest

_WINDOW = 0.04  # share of a phase's steps between its checks
_SLOWER, _LEAST = 1.5, 10.0  # the step's divisors, at a check and in all


class Phases(NamedTuple):
    """Radii to attack within, one after the other; each phase starts at the best point of the last, projected.

    radii        in units of eps; the last is 1, and only its points count
    shares       of the steps, rounded up; the last phase has those that are left
    first_share  of the features, moved by the first steps of a phase. None: two thirds of those that its start changes
    """

    radii: tuple[float, ...]
    shares: tuple[float, ...]
    first_share: float | None

    def lengths(self, num_steps: int) -> np.ndarray:
        """Steps of each phase."""
        ends = [0]
        for share in self.shares[:-1]:
            ends.append(min(ends[-1] + math.ceil(share * num_steps), num_steps))
        return np.diff([*ends, num_steps])


ONE = Phases((1.0,), (1.0,), 0.2)
SHRINKING = Phases((3.0, 2.0, 1.0), (0.3, 0.3, 0.4), None)
"""The official `use_largereps`: what AutoAttack's standard version uses. Section 3.3 of the paper."""


class Memory(NamedTuple):
    """What a row carries from step to step; images are [B, ...], the rest is [B]."""

    x: Array  # to be evaluated next
    best: Array  # of this phase
    best_gradient: Array
    best_loss: Array
    step_size: Array  # in the L1 norm
    moved: Array  # features that a step moves
    changed: Array  # features that the best point changed at the last check
    since: Array  # steps since the last check


@checked
def apgd_l1(
    *,
    eps: NonNegative,
    clip: Clip | None,
    objective: Objective,
    name: str,
    num_steps: Count,
    num_restarts: Count,
    phases: Phases,
) -> Search:
    """APGD within the L1 ball and `clip` on an untargeted `objective`: num_steps moves, and an evaluation more a phase.

    AutoAttack's are num_steps = 100, num_restarts = 5; phases = `SHRINKING` in `standard`, `ONE` in `plus`.
    """
    settings = {"objective": objective.__name__, "eps": eps, "clip": clip, "num_steps": num_steps, "phases": phases}
    rule = _rule(eps, clip, phases, num_steps)
    return _search(rule, name, settings, lambda z, item: objective(z, item.y), 0, num_restarts)


@checked
def apgd_l1_targeted(
    *,
    eps: NonNegative,
    clip: Clip | None,
    name: str,
    num_steps: Count,
    num_targets: Count,
    num_restarts: Count,
    phases: Phases,
    objective: Callable[[Array, tuple[Array, Array]], Array] = targeted_dlr,
) -> Search:
    """APGD towards each of the num_targets most likely wrong classes in turn, on `objective(logits, (y, target))`.

    With `targeted_dlr` AutoAttack's APGD-T: num_targets = 5 in `standard`, 9 in `plus`. Any wrong class is a success.
    """
    settings = {"objective": objective.__name__, "eps": eps, "clip": clip, "num_steps": num_steps, "phases": phases}
    rule = _rule(eps, clip, phases, num_steps)
    return _search(rule, name, settings, lambda z, item: objective(z, (item.y, item.target)), num_targets, num_restarts)


class _Rule(NamedTuple):
    """radii, firsts (the evaluation that each phase begins with) and windows: one entry a phase."""

    clip: Clip | None
    first_share: float | None
    radii: Array
    firsts: np.ndarray
    windows: np.ndarray
    num_steps: int


def _rule(eps: float, clip: Clip | None, phases: Phases, num_steps: int) -> _Rule:
    lengths = phases.lengths(num_steps)
    windows = np.array([max(int(_WINDOW * length), 1) for length in lengths], np.int32)
    firsts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    return _Rule(clip, phases.first_share, eps * np.asarray(phases.radii), firsts, windows, num_steps + len(lengths))


def _search(rule: _Rule, name: str, settings: dict, goal: Callable, num_targets: int, num_restarts: int) -> Search:
    settings = {**settings, "num_targets": num_targets, "num_restarts": num_restarts}
    return Search(
        name, settings, lambda item: _begin(rule, item),
        lambda logits_fn, item, t, memory: _step(rule, logits_fn, item, t, memory, lambda z: goal(z, item)),
        rule.num_steps, num_targets, num_restarts, forwards=1, backwards=1,
    )  # fmt: skip


def _begin(rule: _Rule, item: Item) -> Memory:
    threat = l1(rule.radii[0], rule.clip)
    x = threat.project(item.x, gaussian(scale=1.0)(threat, item.x, item.key))
    zero, count = jnp.zeros(len(x), x.dtype), jnp.zeros(len(x), jnp.int32)
    return Memory(x, x, jnp.zeros_like(x), zero, zero, count, count, count)


def _step(rule: _Rule, logits_fn: LogitsFn, item: Item, t: Array, memory: Memory, goal: Callable[[Array], Array]):
    gradient, loss, logits = slope(logits_fn, memory.x, goal)
    phase, following = _phase(rule, t), _phase(rule, t + 1)
    radii = jnp.asarray(round_down(rule.radii, item.x.dtype))
    tried = Tried(memory.x, logits, phase == len(radii) - 1)

    memory = _note(memory, gradient, loss, first=t == jnp.asarray(rule.firsts)[phase])
    memory = _opened(rule, item.x, memory, radii[phase], first=t == jnp.asarray(rule.firsts)[phase])
    due = memory.since == jnp.asarray(rule.windows)[phase]
    memory, current, gradient = _check(item.x, memory, tried.x, gradient, radii[phase], due)
    ahead = current + _ascent(gradient, memory.moved, memory.step_size)
    request = jnp.where(per_example(following > phase, ahead), memory.best, ahead)
    return memory._replace(x=l1(radii[following], rule.clip).project(item.x, request)), tried


def _phase(rule: _Rule, t: Array) -> Array:
    return sum((t >= first).astype(jnp.int32) for first in rule.firsts[1:]) + jnp.zeros_like(t)


def _note(memory: Memory, gradient: Array, loss: Array, first: Array) -> Memory:
    """Enters the point just evaluated."""
    better = first | (loss > memory.best_loss)
    rows = per_example(better, gradient)
    return memory._replace(
        best=jnp.where(rows, memory.x, memory.best),
        best_gradient=jnp.where(rows, gradient, memory.best_gradient),
        best_loss=jnp.where(better, loss, memory.best_loss),
        since=jnp.where(first, 0, memory.since + 1),
    )


def _opened(rule: _Rule, x: Array, memory: Memory, radius: Array, first: Array) -> Memory:
    """Step, width and what the next check compares with, where a phase begins."""
    size = x[0].size
    if rule.first_share is None:
        changed = _changed(x, memory.best)
        moved = _two_thirds(changed)
    else:
        changed, moved = size, size - min(int((1 - rule.first_share) * size), size - 1)
    return memory._replace(
        step_size=jnp.where(first, radius, memory.step_size),
        moved=jnp.where(first, moved, memory.moved),
        changed=jnp.where(first, changed, memory.changed),
    )


def _check(
    x: Array, memory: Memory, current: Array, gradient: Array, radius: Array, due: Array
) -> tuple[Memory, Array, Array]:
    """Where a window ends: sets width and step by the best point. Returns the point and gradient to go on from."""
    changed = _changed(x, memory.best)
    sparser = 20 * changed < 19 * memory.changed
    step_size = jnp.where(sparser, radius, jnp.maximum(memory.step_size / _SLOWER, radius / _LEAST))
    checked = memory._replace(
        step_size=jnp.where(due, step_size, memory.step_size),
        moved=jnp.where(due, _two_thirds(changed), memory.moved),
        changed=jnp.where(due, changed, memory.changed),
        since=jnp.where(due, 0, memory.since),
    )
    back = per_example(due & sparser, x)
    return checked, jnp.where(back, memory.best, current), jnp.where(back, memory.best_gradient, gradient)


def _ascent(gradient: Array, count: Array, step_size: Array) -> Array:
    """A step of L1 norm step_size [B], equal on the `count` [B] features of the largest gradient, and on any like the
    last of them."""
    size = jnp.abs(gradient).reshape(len(gradient), -1)
    chosen = largest(size, count[:, None])
    floor = jnp.min(jnp.where(chosen, size, jnp.inf), -1)
    sign = jnp.where(jnp.abs(gradient) >= per_example(floor, gradient), jnp.sign(gradient), 0.0)
    num = jnp.sum(jnp.abs(sign), tuple(range(1, sign.ndim)))
    return sign * per_example(step_size / jnp.maximum(num, 1.0), sign)


def _changed(x: Array, z: Array) -> Array:
    """How many features of z are not those of x, [B]."""
    return jnp.sum(z != x, tuple(range(1, x.ndim)), dtype=jnp.int32)


def _two_thirds(count: Array) -> Array:
    """Rounded up, and at least 1."""
    return jnp.maximum((2 * count + 2) // 3, 1)
