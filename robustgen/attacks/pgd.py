"""Projected gradient ascent: PGD, and the one-step attacks FGSM and R+FGSM that are its special cases."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks import starts
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree, Threat
from robustgen.knobs import Count, NonNegative, Positive, checked
from robustgen.spread import example_keys


class Best(NamedTuple):
    """The best found so far of each example: x [B, ...] and its `value` [B]."""

    x: Array
    value: Array


def better(best: Best, other: Best) -> Best:
    """Per example, the one with the larger value, `best` where they are equal. A NaN is worse than any number."""
    improves = (other.value > best.value) | jnp.isnan(best.value)
    rows = improves.reshape(improves.shape + (1,) * (other.x.ndim - 1))
    return Best(jnp.where(rows, other.x, best.x), jnp.where(improves, other.value, best.value))


@checked
def pgd(
    threat: Threat,
    *,
    objective: Objective,
    step_size: NonNegative,
    num_steps: Count,
    start: starts.Start = starts.uniform,
    judge: Objective | None = None,
) -> Attack:
    """`num_steps` projected steps of steepest ascent on `objective`. Madry et al. 2018 (arXiv 1706.06083), section 2.1.

    With `judge=None` the last iterate is returned, after num_steps gradients: what training recipes publish. With a
    `judge` (`objectives.margin`, say) the best member found by it is returned, `x` and the start included, at the cost
    of one more forward pass for each of `x` and the last iterate: what an evaluation wants, never worse than `x`.
    """

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        def value(z: Array) -> tuple[Array, Array]:
            logits = logits_fn(z)
            return jnp.sum(objective(logits, target)), logits

        def step(z: Array) -> tuple[Array, Array]:
            gradient, logits = jax.grad(value, has_aux=True)(z)
            ascent = threat.ascend(jnp.nan_to_num(gradient), step_size)  # where a net gives NaN, x_adv stays a member
            return threat.project(x, z + ascent), logits

        z = start(threat, x, example_keys(key, x.shape[0]))
        if judge is None:
            return jax.lax.fori_loop(0, num_steps, lambda _, z: step(z)[0], z)

        def judged_step(_, carry: tuple[Array, Best]) -> tuple[Array, Best]:
            z, best = carry
            following, logits = step(z)
            return following, better(best, Best(z, judge(logits, target)))

        begin = threat.project(x, z), Best(x, judge(logits_fn(x), target))
        z, best = jax.lax.fori_loop(0, num_steps, judged_step, begin)
        return better(best, Best(z, judge(logits_fn(z), target))).x

    return attack


@checked
def fgsm(threat: Threat, *, objective: Objective, step_size: Positive, judge: Objective | None = None) -> Attack:
    """One step from `x` itself. Goodfellow et al. 2015 (arXiv 1412.6572); the full radius is step_size = eps."""
    return pgd(threat, objective=objective, step_size=step_size, num_steps=1, start=starts.zero, judge=judge)


@checked
def r_fgsm(
    threat: Threat, *, objective: Objective, random_size: Positive, step_size: Positive, judge: Objective | None = None
) -> Attack:
    """A random sign step of `random_size`, then one gradient step. Tramer et al. 2018 (arXiv 1705.07204), section 3.3.

    The paper takes random_size = eps / 2 and step_size = eps - random_size.
    """
    start = starts.random_sign(step_size=random_size)
    return pgd(threat, objective=objective, step_size=step_size, num_steps=1, start=start, judge=judge)
