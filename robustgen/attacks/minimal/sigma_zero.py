"""sigma-zero: the fewest features, by gradients of a smooth count."""

import jax
import jax.numpy as jnp
import optax

from robustgen.attacks.minimal.norms import L0
from robustgen.attacks.minimal.search import MinimalAttack, annealed, nearer, nothing_yet
from robustgen.attacks.objectives import margin
from robustgen.core import Array, Key, LogitsFn
from robustgen.knobs import Count, Fraction, Positive, checked
from robustgen.threats.geometry import Clip, limits, per_example


@checked
def sigma_zero(
    *,
    num_steps: Count,
    step_size: Positive,
    final_step_size: Positive,
    sigma: Positive,
    threshold: Fraction,
    threshold_step: Positive,
    clip: Clip = (0.0, 1.0),
) -> MinimalAttack:
    """Least L0, counted in features. Cina et al. 2024 (arXiv 2402.01879), algorithm 1.

    Adam on max(-margin, 0) + mean of delta^2 / (delta^2 + sigma), the gradient divided by its largest entry; entries
    below a threshold are then set to zero. The threshold rises by `threshold_step` times the step size where the point
    was misclassified and falls by it elsewhere. A count has no scale, so the search runs in a box of width 1 and every
    knob is a fraction of the width of `clip`.

    Published: num_steps 1000 (100 to 1000), step_size 1, final_step_size 0.1, sigma 0.001, threshold 0.3,
    threshold_step 0.01. Follows the authors' code, with the threshold that adapts: in its first version the change was
    made to a copy. The last iterate is not looked at: num_steps gradients in all.
    """
    adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

    def attack(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Array:
        del key
        low, high = limits(x, clip)
        width = high - low

        def loss(delta: Array) -> tuple[Array, tuple[Array, Array]]:
            z = x + width * delta
            z = z + jax.lax.stop_gradient(jnp.clip(z, low, high) - z)  # rounding alone: on the box, clip cuts gradients
            margins = margin(logits_fn(z), y)
            smooth = jnp.mean(delta**2 / (delta**2 + sigma), tuple(range(1, x.ndim)))
            return jnp.sum(jnp.where(margins <= 0, -margins, 0.0) + smooth), (z, margins)

        def step(index: Array, carry: tuple) -> tuple:
            delta, state, tau, best = carry
            gradient, (z, margins) = jax.grad(loss, has_aux=True)(delta)
            best = nearer(best, z, L0.size(z - x), margins > 0)
            direction, state = adam.update(_largest_one(jnp.nan_to_num(gradient)), state)
            rate, following = (annealed(step_size, final_step_size, i, num_steps) for i in (index, index + 1))
            delta = (jnp.clip(x + width * (delta - rate * direction), low, high) - x) / width
            change = threshold_step * following
            tau = jnp.clip(tau + jnp.where(margins > 0, change, -change), 0.0, 1.0)
            return jnp.where(jnp.abs(delta) < per_example(tau, x), 0.0, delta), state, tau, best

        zero = jnp.zeros_like(x)
        begin = zero, adam.init(zero), jnp.full(x.shape[0], threshold, x.dtype), nothing_yet(x)
        return jax.lax.fori_loop(0, num_steps, step, begin)[3].x

    return attack


def _largest_one(gradient: Array) -> Array:
    """Each example divided by its largest entry."""
    largest = jnp.max(jnp.abs(gradient), tuple(range(1, gradient.ndim)))
    return gradient / per_example(jnp.maximum(largest, 1e-12), gradient)
