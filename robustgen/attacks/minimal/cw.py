"""C&W: distance plus c times the margin, minimised by Adam within the box, c by bisection."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks.minimal.search import MinimalAttack, Nearest, nearer
from robustgen.attacks.objectives import margin
from robustgen.core import Array, Key, LogitsFn
from robustgen.knobs import Count, NonNegative, Positive, checked
from robustgen.threats.geometry import Clip, limits

UNBOUNDED = 1e10
"""The upper end of the bisection before anything is found."""


class _Descent(NamedTuple):
    """The inner minimisation: shift, mean, square like x; running, found [B] bool; loss [B] at the last check."""

    index: Array
    shift: Array
    mean: Array
    square: Array
    running: Array
    found: Array
    loss: Array
    best: Nearest


@checked
def cw_l2(
    *,
    confidence: NonNegative,
    learning_rate: Positive,
    num_searches: Count,
    num_steps: Count,
    num_checks: Count,
    init_c: Positive,
    clip: Clip = (0.0, 1.0),
) -> MinimalAttack:
    """Least L2 by penalty. Carlini & Wagner 2017 (arXiv 1608.04644), section VI.A, untargeted.

    Minimises |x' - x|^2 + c max(confidence - margin, 0) over w, x' = tanh(w) scaled to the box, by `num_steps` of Adam,
    for `num_searches` values of c: from `init_c` ten times larger until something is found, then by bisection. A point
    counts where its margin exceeds `confidence` (kappa), so with confidence > 0 an x that is misclassified by less is
    attacked too.

    Published: confidence 0, learning_rate 0.01, num_searches 9, num_steps 10000, num_checks 10, init_c 0.001, for
    inputs in [-0.5, 0.5]. From the official code (nn_robust_attacks, l2_attack.py): an example gives up its value of c
    when its loss fell by less than 0.01 % since the last of `num_checks` evenly spaced checks (1: never gives up); from
    10 searches on, the last takes the upper end. Deviations: giving up goes by example, which is the official code at
    its batch size of 1, not by the batch's sum; a first loss above 1e6 is no reason to give up; the margin must exceed
    +confidence, as in the paper (that code, untargeted, compares with -confidence); not found gives x, not zeros.
    """

    def attack(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array:
        del key
        low, high = limits(x, clip)
        half, middle = (high - low) / 2, (high + low) / 2
        w = jnp.arctanh(jnp.clip((x - middle) / half, -1, 1) * 0.9999995)  # as the official x * 1.999999, x in +-0.5

        def decode(shift: Array) -> Array:
            return jnp.clip(middle + half * jnp.tanh(w + shift), low, high)

        near_x = decode(jnp.zeros_like(x))

        def loss(shift: Array, c: Array) -> tuple[Array, tuple]:
            z = decode(shift)
            margins = margin(logits_fn(z), y)
            squared = jnp.sum((z - near_x) ** 2, tuple(range(1, x.ndim)))
            each = squared + c * jnp.maximum(confidence - margins, 0.0)
            return jnp.sum(each), (each, z, squared, margins > confidence)

        def going(run: _Descent) -> Array:
            return (run.index < num_steps) & jnp.any(run.running)

        def descend(c: Array, best: Nearest) -> _Descent:
            def step(run: _Descent) -> _Descent:
                gradient, seen = jax.grad(loss, has_aux=True)(run.shift, c)
                judged = _judge(run, *seen, every=max(num_steps // num_checks, 1))
                return _adam(judged, jnp.nan_to_num(gradient), learning_rate)

            return jax.lax.while_loop(going, step, _fresh(x, best))

        def search(index: Array, carry: tuple) -> tuple:
            c, lower, upper, best = carry
            c = jnp.where((num_searches >= 10) & (index == num_searches - 1), upper, c)
            run = descend(c, best)
            return *_bisect(c, lower, upper, run.found), run.best

        c = jnp.full(x.shape[0], init_c, x.dtype)
        done = jnp.where(margin(logits_fn(x), y) > confidence, 0.0, jnp.inf).astype(x.dtype)
        begin = c, jnp.zeros_like(c), jnp.full_like(c, UNBOUNDED), Nearest(x, done)
        return jax.lax.fori_loop(0, num_searches, search, begin)[3].x

    return attack


def _fresh(x: Array, best: Nearest) -> _Descent:
    zeros, rows = jnp.zeros_like(x), jnp.zeros(x.shape[0], bool)
    return _Descent(jnp.int32(0), zeros, zeros, zeros, ~rows, rows, jnp.full(x.shape[0], jnp.inf, x.dtype), best)


def _judge(run: _Descent, loss: Array, z: Array, squared: Array, valid: Array, every: int) -> _Descent:
    """Who gives up, and what the point z [B, ...] is worth to those who go on."""
    check = run.index % every == 0
    running = run.running & ~(check & (loss > 0.9999 * run.loss))
    valid = valid & running
    best = nearer(run.best, z, squared, valid)
    return run._replace(
        running=running, found=run.found | valid, loss=jnp.where(check, loss, run.loss), best=best
    )


def _adam(run: _Descent, gradient: Array, learning_rate: Array) -> _Descent:
    """One step of Adam as TensorFlow writes it: 1e-8 is added before the correction of bias, which shows where tanh is
    saturated and gradients are of that size."""
    index = run.index + 1
    mean, square = 0.9 * run.mean + 0.1 * gradient, 0.999 * run.square + 0.001 * gradient**2
    rate = learning_rate * jnp.sqrt(1 - 0.999**index) / (1 - 0.9**index)
    shift = run.shift - rate * mean / (jnp.sqrt(square) + 1e-8)
    return run._replace(index=index, shift=shift, mean=mean, square=square)


def _bisect(c: Array, lower: Array, upper: Array, found: Array) -> tuple[Array, Array, Array]:
    """(c, lower, upper) [B] of the next search."""
    lower, upper = jnp.where(found, lower, jnp.maximum(lower, c)), jnp.where(found, jnp.minimum(upper, c), upper)
    return jnp.where(upper < UNBOUNDED / 10, (lower + upper) / 2, jnp.where(found, c, 10 * c)), lower, upper
