"""Attacks made of attacks."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.pgd import Best, better
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree
from robustgen.knobs import Count, KnobError, checked
from robustgen.spread import example_keys
from robustgen.threats import round_down


@checked
def restarts(attack: Attack, *, judge: Objective, num_restarts: Count) -> Attack:
    """Runs `attack` `num_restarts` times with keys of their own; keeps, per example, the best by `judge`."""

    def restarted(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])

        def run(index: Array) -> Best:
            x_adv = attack(logits_fn, x, target, jax.vmap(jax.random.fold_in, (0, None))(keys, index))
            return Best(x_adv, judge(logits_fn(x_adv), target))

        def body(index: Array, best: Best) -> Best:
            return better(best, run(index))

        return jax.lax.fori_loop(1, num_restarts, body, run(jnp.int32(0))).x

    return restarted


@checked
def worst_of(attacks: Sequence[Attack], *, judge: Objective) -> Attack:
    """Runs every attack on every example; keeps, per example, the best by `judge`."""
    if not attacks:
        raise KnobError("attacks", "must name at least one attack")

    def worst(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])
        best = None
        for index, attack in enumerate(attacks):
            x_adv = attack(logits_fn, x, target, jax.vmap(jax.random.fold_in, (0, None))(keys, index))
            found = Best(x_adv, judge(logits_fn(x_adv), target))
            best = found if best is None else better(best, found)
        return best.x

    return worst


def over_eps(
    attack_at: Callable[[Array], Attack], eps: Sequence[float]
) -> Callable[[LogitsFn, Array, PyTree, Key], Array]:
    """An attack for every radius in `eps`, compiled once: (logits_fn, x, target, key) -> x_adv [E, B, ...].

    An example that a smaller radius broke may be given up at a larger one by an unlucky run: take running maxima over
    E where a security curve must be monotone (as `evaluation` does).
    """
    exact = np.asarray(eps, np.float64)
    if exact.ndim != 1 or not np.all(np.isfinite(exact)) or np.any(exact < 0):
        raise KnobError("eps", f"must be a list of finite radii >= 0; got {eps}")
    radii = round_down(exact, np.float32)

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        return jax.lax.map(lambda radius: attack_at(radius)(logits_fn, x, target, key), jnp.asarray(radii))

    return attack
