"""Iterated FGSM without and with momentum: BIM and MIM."""

import jax
import jax.numpy as jnp

from robustgen.attacks import starts
from robustgen.attacks.pgd import Best, better, pgd
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree, Threat
from robustgen.knobs import Count, NonNegative, checked


@checked
def bim(
    threat: Threat, *, objective: Objective, step_size: NonNegative, num_steps: Count, judge: Objective | None = None
) -> Attack:
    """PGD from x itself. Kurakin et al. 2017 (arXiv 1607.02533), section 2.2; there step_size is 1 / 255."""
    return pgd(threat, objective=objective, step_size=step_size, num_steps=num_steps, start=starts.zero, judge=judge)


@checked
def mim(
    threat: Threat,
    *,
    objective: Objective,
    step_size: NonNegative,
    num_steps: Count,
    decay: NonNegative,
    judge: Objective | None = None,
) -> Attack:
    """Momentum iterative method, from x itself. Dong et al. 2018 (arXiv 1710.06081), algorithm 1, eq. 6 to 8.

    g <- decay g + gradient / |gradient|_1, then a projected step of `step_size` that g grows fastest along: its sign
    for linf, g / |g|_2 for l2. The authors' code divides by the mean instead of the sum, which scales every g alike and
    moves no step. Published: decay 1, num_steps 10, step_size eps / num_steps. `judge` as for `pgd`.
    """

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        del key

        def value(z: Array) -> tuple[Array, Array]:
            logits = logits_fn(z)
            return jnp.sum(objective(logits, target)), logits

        def step(_, carry: tuple[Array, Array, Best]) -> tuple[Array, Array, Best]:
            z, velocity, best = carry
            gradient, logits = jax.grad(value, has_aux=True)(z)
            if judge is not None:
                best = better(best, Best(z, judge(logits, target)))
            velocity = decay * velocity + _unit_l1(jnp.nan_to_num(gradient))
            return threat.project(x, z + threat.ascend(velocity, step_size)), velocity, best

        begin = threat.project(x, x), jnp.zeros_like(x), Best(x, jnp.full(x.shape[0], -jnp.inf, x.dtype))
        z, _, best = jax.lax.fori_loop(0, num_steps, step, begin)
        return z if judge is None else better(best, Best(z, judge(logits_fn(z), target))).x

    return attack


def _unit_l1(gradient: Array) -> Array:
    """Each example scaled to L1 norm 1, a zero left zero; by its largest entry first, so that no sum vanishes."""
    axes = tuple(range(1, gradient.ndim))
    tiny = jnp.finfo(gradient.dtype).tiny
    gradient = gradient / jnp.maximum(jnp.max(jnp.abs(gradient), axes, keepdims=True), tiny)
    return gradient / jnp.maximum(jnp.sum(jnp.abs(gradient), axes, keepdims=True), 1.0)
