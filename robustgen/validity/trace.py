"""Everything an attack evaluates, seen from the model's side: any `Attack`, whatever it is made of."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.objectives import margin
from robustgen.core import Array, Key, LogitsFn, Threat
from robustgen.validity.evaluated import AttackAt

WITHIN = 1e-6
"""How far projection may move a member of the set, against rounding."""


class Path(NamedTuple):
    """x_adv [N, ...]; predicted [N] there, by the model as the attack saw it; losses [T, N] margins and hits [T, N] (a
    misclassified member of the set) at each evaluation."""

    x_adv: Array
    predicted: np.ndarray
    losses: np.ndarray
    hits: np.ndarray


@functools.lru_cache(maxsize=8)
def tracer(attack_at: AttackAt, threat_at: Callable[[Array], Threat]) -> Callable[..., Path]:
    """(net, x, y, eps, key) -> Path, compiled once for equal arguments.

    Attacks that `vmap` the model (`attacks.eot`) cannot be traced.
    """
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def note(loss: Array, hit: Array) -> None:
        seen.append((np.asarray(loss), np.asarray(hit)))

    @jax.jit
    def run(net: LogitsFn, x: Array, y: Array, eps: Array, key: Key) -> tuple[Array, Array]:
        threat = threat_at(eps)

        def watched(z: Array) -> Array:
            logits = net(z)
            jax.debug.callback(note, *_judged(threat, x, y, z, logits), ordered=True)
            return logits

        x_adv = attack_at(threat, eps)(watched, x, y, key)
        return x_adv, jnp.argmax(net(x_adv), -1)

    def trace(net: LogitsFn, x: Array, y: Array, eps: float, key: Key) -> Path:
        seen.clear()
        x_adv, predicted = jax.block_until_ready(run(net, x, y, jnp.float32(eps), key))
        jax.effects_barrier()
        losses, hits = (np.stack(column) for column in zip(*seen, strict=True))
        return Path(x_adv, np.asarray(predicted), losses, hits)

    return trace


def _judged(threat: Threat, x: Array, y: Array, z: Array, logits: Array) -> tuple[Array, Array]:
    z, logits = jax.lax.stop_gradient((z, logits))
    moved = jnp.max(jnp.abs(threat.project(x, z) - z).reshape(len(x), -1), -1)
    wrong = (jnp.argmax(logits, -1) != y) | ~jnp.all(jnp.isfinite(logits), -1)
    return margin(logits, y), wrong & (moved <= WITHIN)
