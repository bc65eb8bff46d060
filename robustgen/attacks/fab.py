"""FAB: the nearest misclassified point, step by step. Croce & Hein 2020 (arXiv 1907.02044), algorithm 1.

A step linearises the net at x_k, takes the shortest ways d1 from x_k and d2 from the clean x to the linear boundary
inside the box, and goes to x_{k+1} = clip((x_k + eta d1)(1 - a) + (x + eta d2) a), a = min(|d1| / (|d1| + |d2|),
alpha_max): along the boundary, towards x. A misclassified x_{k+1} is tried, and followed by x + beta (x_{k+1} - x).

As in the official code (`fab_base.py`, which AutoAttack runs): distances count as at least 1e-8 in a; a restart starts
eps / 2 away, since each forgets what the ones before found; there is no final search. Deviations: success is decided at
every step (official: of the nearest point found, after the run: the same examples); a point that only rounding keeps
out of the threat set (1e-6 of eps) is moved into it before it is evaluated; a gradient that is NaN counts as zero. The
box is any, and there may be as few as two classes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks.norms import Norm
from robustgen.attacks.objectives import margin, multi_targeted
from robustgen.attacks.search import Item, Search, Tried
from robustgen.core import Array, LogitsFn
from robustgen.knobs import Count, Fraction, NonNegative, Positive, checked
from robustgen.threats.geometry import Clip, limits, per_example


class Rule(NamedTuple):
    """The knobs of a step."""

    norm: Norm
    eps: float
    clip: Clip | None
    alpha_max: float
    eta: float
    beta: float


class Plane(NamedTuple):
    """A linear model of a logit's lead over that of y: `lead` [B] at a point, and its `gradient` there [B, ...]."""

    lead: Array
    gradient: Array


@checked
def fab_t(
    norm: Norm,
    *,
    eps: NonNegative,
    clip: Clip | None,
    num_steps: Count,
    num_targets: Count,
    num_restarts: Count,
    alpha_max: Fraction,
    eta: Positive,
    beta: Fraction,
) -> Search:
    """FAB towards the boundary with one class at a time; any wrong class counts as success. One gradient a step.

    AutoAttack's: num_steps 100, num_targets 9, num_restarts 1, alpha_max 0.1, eta 1.05, beta 0.9.
    """
    rule = Rule(norm, eps, clip, alpha_max, eta, beta)
    return _search("fab-t", rule, _with_target, num_steps, num_targets, num_restarts)


@checked
def fab(
    norm: Norm,
    *,
    eps: NonNegative,
    clip: Clip | None,
    num_steps: Count,
    num_restarts: Count,
    alpha_max: Fraction,
    eta: Positive,
    beta: Fraction,
) -> Search:
    """FAB towards whichever linear boundary is nearest to x_k. AutoAttack `plus`: knobs as for `fab_t`, 5 restarts.

    A step takes K - 1 backward passes, as one over a batch K - 1 times as large. `backwards` counts that one, for K is
    not known here: times K - 1 it is the cost in passes of an example.
    """
    rule = Rule(norm, eps, clip, alpha_max, eta, beta)
    return _search("fab", rule, functools.partial(_with_nearest, norm.dual), num_steps, 0, num_restarts)


def _search(
    name: str,
    rule: Rule,
    linearise: Callable[[LogitsFn, Array, Item], Plane],
    num_steps: int,
    num_targets: int,
    num_restarts: int,
) -> Search:
    counts = {"num_steps": num_steps, "num_targets": num_targets, "num_restarts": num_restarts}
    settings = {**rule._asdict(), "norm": rule.norm.name, **counts}

    def step(logits_fn: LogitsFn, item: Item, t: Array, z: Array) -> tuple[Array, Tried]:
        del t
        # Sums over one axis are the fastest. Without the barriers XLA's CPU fuses these sums into the net's first layer
        # and computes parts of it again and again: a step takes twice as long.
        flat_x, flat_z = item.x.reshape(len(z), -1), z.reshape(len(z), -1)
        plane = jax.lax.optimization_barrier(linearise(logits_fn, z, item))
        moved, inside = rule.norm.member(flat_x, _move(rule, flat_x, flat_z, plane), rule.eps, rule.clip)
        moved = jax.lax.optimization_barrier(moved.reshape(z.shape))
        logits = logits_fn(moved)
        broken = per_example(margin(logits, item.y) > 0, moved)
        following = jnp.where(broken, item.x + rule.beta * (moved - item.x), moved)
        return following, Tried(moved, logits, inside)

    begin = functools.partial(_begin, rule)
    return Search(name, settings, begin, step, **counts, forwards=2, backwards=1)


def _begin(rule: Rule, item: Item) -> Array:
    shift = rule.eps / 2 * rule.norm.direction(item.key, item.x)
    return jnp.where(per_example(item.restart > 0, shift), jnp.clip(item.x + shift, *limits(item.x, rule.clip)), item.x)


def _move(rule: Rule, x: Array, z: Array, plane: Plane) -> Array:
    """x_{k+1} of x_k = z; all [B, F]."""
    lead, gradient = jnp.nan_to_num(plane.lead), jnp.nan_to_num(plane.gradient).reshape(x.shape)
    leads = jnp.stack([lead, lead + jnp.sum(gradient * (x - z), axis=1)])
    lower, upper = limits(x, rule.clip)
    from_z, from_x = rule.norm.to_plane(jnp.stack([z, x]), gradient, leads, lower, upper)
    to_z, to_x = (jnp.maximum(rule.norm.size(shift), 1e-8)[:, None] for shift in (from_z, from_x))
    alpha = jnp.minimum(to_z / (to_z + to_x), rule.alpha_max)
    return jnp.clip((z + rule.eta * from_z) * (1 - alpha) + (x + rule.eta * from_x) * alpha, lower, upper)


def _with_target(logits_fn: LogitsFn, z: Array, item: Item) -> Plane:
    """The boundary with the class aimed at."""

    def total(z: Array) -> tuple[Array, Array]:
        lead = multi_targeted(logits_fn(z), (item.y, item.target))
        return jnp.sum(lead), lead

    gradient, lead = jax.grad(total, has_aux=True)(z)
    return Plane(lead, gradient)


def _with_nearest(dual: Callable[[Array], Array], logits_fn: LogitsFn, z: Array, item: Item) -> Plane:
    """Of all classes but y, the boundary whose linear model is nearest to z in the whole space; the first of equals."""
    logits, pull = jax.vjp(logits_fn, z)
    others = jnp.arange(logits.shape[-1] - 1)[:, None]
    others = others + (others >= item.y)  # [K - 1, B]
    pick = functools.partial(jax.nn.one_hot, num_classes=logits.shape[-1], dtype=logits.dtype)
    (gradients,) = jax.vmap(pull)(pick(others) - pick(item.y))
    leads = jax.vmap(multi_targeted, (None, (None, 0)))(logits, (item.y, others))
    distances = jnp.abs(leads) / (1e-12 + jax.vmap(dual)(gradients))
    nearest, row = jnp.argmin(distances, axis=0), jnp.arange(len(z))
    return Plane(leads[nearest, row], gradients[nearest, row])
