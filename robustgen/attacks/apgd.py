"""Auto-PGD: projected ascent with momentum that halves its own step. Croce & Hein 2020 (arXiv 2003.01690), algorithm 1.

As in the official code (`autopgd_base.py`): the first step has no momentum; at the first check the loss of step 1 is
compared with 0, so that a cross-entropy always counts as risen there; a check that halves the step goes back to the
best point and the gradient stored with it. Two deviations: projection is the exact one of the threat set, where the
official L2 scales onto the ball and then clips; and no run is continued once its example is broken, which the caller
decides.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import targeted_dlr
from robustgen.attacks.search import Item, Search, Tried
from robustgen.attacks.starts import Start
from robustgen.core import Array, LogitsFn, Objective, Threat
from robustgen.knobs import Count, Fraction, NonNegative, Positive, checked


class Memory(NamedTuple):
    """What a row carries from step to step; images are [B, ...], the rest is [B]."""

    x: Array  # to be evaluated next
    previous: Array  # x was reached from here
    best: Array
    best_gradient: Array
    best_loss: Array
    last_loss: Array
    checked_loss: Array  # the best loss at the last check
    step_size: Array
    rises: Array  # steps since the last check that raised the loss
    since: Array  # steps since the last check
    window: Array  # steps until the next check
    reduced: Array  # whether the last check halved the step


@checked
def apgd(
    threat: Threat,
    *,
    eps: NonNegative,
    start: Start,
    objective: Objective,
    name: str,
    num_steps: Count,
    num_restarts: Count,
    momentum: Fraction = 0.75,
    rho: Fraction = 0.75,
    relative_step: Positive = 2.0,
) -> Search:
    """APGD on an untargeted `objective` (`cross_entropy`, `dlr`, `margin`): num_steps moves, num_steps + 1 evaluations.

    The first step is relative_step * eps long. AutoAttack's are num_steps = 100, num_restarts = 1 (5 in `plus`).
    """
    settings = {"objective": objective.__name__, "eps": eps, "num_steps": num_steps, "num_restarts": num_restarts}
    rule = _Rule(threat, momentum, rho, num_steps)
    return Search(
        name, settings, lambda item: _begin(rule, start, relative_step * eps, item),
        lambda logits_fn, item, t, memory: _step(rule, logits_fn, item, t, memory, lambda z: objective(z, item.y)),
        num_steps + 1, 0, num_restarts, forwards=1, backwards=1,
    )  # fmt: skip


@checked
def apgd_targeted(
    threat: Threat,
    *,
    eps: NonNegative,
    start: Start,
    name: str,
    num_steps: Count,
    num_targets: Count,
    num_restarts: Count,
    objective: Callable[[Array, tuple[Array, Array]], Array] = targeted_dlr,
    momentum: Fraction = 0.75,
    rho: Fraction = 0.75,
    relative_step: Positive = 2.0,
) -> Search:
    """APGD towards each of the num_targets most likely wrong classes in turn, on `objective(logits, (y, target))`.

    With `targeted_dlr` AutoAttack's APGD-T; with `multi_targeted` MultiTargeted. Any wrong class counts as success.
    """
    settings = {
        "objective": objective.__name__, "eps": eps, "num_steps": num_steps, "num_targets": num_targets,
        "num_restarts": num_restarts,
    }  # fmt: skip
    rule = _Rule(threat, momentum, rho, num_steps)

    def step(logits_fn: LogitsFn, item: Item, t: Array, memory: Memory) -> tuple[Memory, Tried]:
        return _step(rule, logits_fn, item, t, memory, lambda z: objective(z, (item.y, item.target)))

    return Search(
        name, settings, lambda item: _begin(rule, start, relative_step * eps, item), step,
        num_steps + 1, num_targets, num_restarts, forwards=1, backwards=1,
    )  # fmt: skip


class _Rule(NamedTuple):
    threat: Threat
    momentum: float
    rho: float
    num_steps: int

    def windows(self) -> tuple[int, int, int]:
        """Length of the first window between checks, by how much each is shorter than the last, and the shortest."""
        return tuple(max(int(share * self.num_steps), 1) for share in (0.22, 0.03, 0.06))


def _begin(rule: _Rule, start: Start, step_size: float, item: Item) -> Memory:
    x = rule.threat.project(item.x, start(rule.threat, item.x, item.key))
    zero = jnp.zeros(len(x), jnp.float32)
    count = jnp.zeros(len(x), jnp.int32)
    return Memory(
        x, x, x, jnp.zeros_like(x), zero, zero, zero, zero + step_size, count, count, count + rule.windows()[0],
        jnp.ones(len(x), bool),
    )  # fmt: skip


def slope(logits_fn: LogitsFn, x: Array, goal: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
    """Gradient [B, ...] (0 for NaN), loss [B] and logits [B, K] of `goal(logits)` at x, in one pass each way."""

    def total(z: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(z)
        loss = goal(logits)
        return jnp.sum(loss), (loss, logits)

    gradient, (loss, logits) = jax.grad(total, has_aux=True)(x)
    return jnp.nan_to_num(gradient), loss, logits


def _step(rule: _Rule, logits_fn: LogitsFn, item: Item, t: Array, memory: Memory, goal: Callable[[Array], Array]):
    gradient, loss, logits = slope(logits_fn, memory.x, goal)
    memory = _note(memory, gradient, loss, first=t == 0)
    memory, current, gradient = _check(rule, memory, gradient)
    following = _move(rule, item.x, memory, current, gradient, first=t == 0)
    tried = Tried(memory.x, logits, jnp.ones(len(loss), bool))
    return memory._replace(x=following, previous=current), tried


def _note(memory: Memory, gradient: Array, loss: Array, first: Array) -> Memory:
    """Enters the point just evaluated."""
    better = first | (loss > memory.best_loss)
    best_loss = jnp.where(better, loss, memory.best_loss)
    return memory._replace(
        best=_where(better, memory.x, memory.best),
        best_gradient=_where(better, gradient, memory.best_gradient),
        best_loss=best_loss,
        last_loss=jnp.where(first, 0.0, loss),
        checked_loss=jnp.where(first, loss, memory.checked_loss),
        rises=memory.rises + (~first & (loss > memory.last_loss)),
        since=memory.since + ~first,
    )


def _check(rule: _Rule, memory: Memory, gradient: Array) -> tuple[Memory, Array, Array]:
    """Where a window ends: halves the step and goes back to the best point, if the loss rose too rarely or the best did
    not improve at an unreduced step. Returns the point and gradient to go on from."""
    due = memory.since == memory.window
    rare = memory.rises <= rule.rho * memory.window
    stuck = ~memory.reduced & (memory.checked_loss >= memory.best_loss)
    halve = due & (rare | stuck)
    _, shorter, shortest = rule.windows()
    changed = memory._replace(
        step_size=jnp.where(halve, memory.step_size / 2, memory.step_size),
        reduced=jnp.where(due, halve, memory.reduced),
        checked_loss=jnp.where(due, memory.best_loss, memory.checked_loss),
        window=jnp.where(due, jnp.maximum(memory.window - shorter, shortest), memory.window),
        rises=jnp.where(due, 0, memory.rises),
        since=jnp.where(due, 0, memory.since),
    )
    return changed, _where(halve, memory.best, memory.x), _where(halve, memory.best_gradient, gradient)


def _move(rule: _Rule, x: Array, memory: Memory, current: Array, gradient: Array, first: Array) -> Array:
    project = rule.threat.project
    ahead = project(x, current + rule.threat.ascend(gradient, _rows(memory.step_size, x)))
    weight = _rows(jnp.where(first, 1.0, rule.momentum), x)
    inertia = current - memory.previous
    return project(x, current + weight * (ahead - current) + (1 - weight) * inertia)


def _where(rows: Array, chosen: Array, other: Array) -> Array:
    return jnp.where(_rows(rows, chosen), chosen, other)


def _rows(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - 1))
