"""Targeted attacks: the wanted class is the goal, and no other wrong class counts.

An attack is targeted by its objective: with `targeted_cross_entropy` or `targeted_margin` its `target` is the wanted
class t. Success is the prediction t, where `targeted_margin` is positive.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from robustgen.attacks.adaptive import no_worse
from robustgen.attacks.objectives import cross_entropy, margin
from robustgen.core import Array, Attack, Key, LogitsFn, Objective
from robustgen.knobs import checked
from robustgen.spread import example_keys


class Choice(Protocol):
    """(clean logits [B, K], labels y [B], keys [B]) -> wanted classes [B] int32, none of them y. K is 2 or more."""

    def __call__(self, logits: Array, y: Array, keys: Key) -> Array: ...


def targeted_cross_entropy(logits: Array, wanted: Array) -> Array:
    """log softmax(logits)_t, [B]; wanted classes t [B] int32. Kurakin et al. 2017 (arXiv 1611.01236, section 2.3)."""
    return -cross_entropy(logits, wanted)


def targeted_margin(logits: Array, wanted: Array) -> Array:
    """logit_t - max_{k != t} logit_k, [B]. Positive exactly where t is predicted.

    The negative of f_6 of Carlini and Wagner 2017 (arXiv 1608.04644), unclipped.
    """
    return -margin(logits, wanted)


def least_likely(logits: Array, y: Array, keys: Key) -> Array:
    """The class with the smallest logit that is not y (Kurakin et al. 2017, arXiv 1607.02533, section 2.3)."""
    del keys
    return jnp.argmin(_without(logits, y, jnp.inf), axis=-1).astype(jnp.int32)


def most_likely(logits: Array, y: Array, keys: Key) -> Array:
    """The wrong class with the largest logit: the easiest by a first guess."""
    del keys
    return jnp.argmax(_without(logits, y, -jnp.inf), axis=-1).astype(jnp.int32)


def random_class(logits: Array, y: Array, keys: Key) -> Array:
    """Uniform over the wrong classes (Carlini and Wagner 2017, section V-B, "average case")."""
    others = logits.shape[-1] - 1
    shift = jax.vmap(lambda key: jax.random.randint(key, (), 1, others + 1))(keys)
    return ((y + shift) % (others + 1)).astype(jnp.int32)


@checked
def targeted(attack: Attack, *, choose: Choice, judge: Objective | None = None) -> Attack:
    """From labels to goals: runs `attack`, whose objective is targeted, at the class that `choose` wants for each x.

    The attack's `target` is the true labels, as for untargeted ones, which makes it part of `worst_of` and of
    evaluations that count any wrong class. With a `judge` of (logits, y), x is kept where x_adv is no better.
    """

    def aimed(logits_fn: LogitsFn, x: Array, target: Array, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])
        wanted = choose(logits_fn(x), target, keys)
        return no_worse(logits_fn, x, attack(logits_fn, x, wanted, keys), target, judge)

    return aimed


def _without(logits: Array, y: Array, value: float) -> Array:
    return jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), value, logits)
