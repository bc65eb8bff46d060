"""What is measured of the model alone: outputs, gradients, slopes, noise. Everything on the host, in NumPy."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.objectives import cross_entropy, dlr, margin
from robustgen.core import Array, Key, LogitsFn, Objective, Threat
from robustgen.evaluation.validity.failures import DRAWS, WIDTH
from robustgen.spread import example_keys

PASSES, DIRECTIONS = 5, 8
DIFFERENCE = 1e-3
"""Half the step of central differences, as a share of the box: small against kinks, large against float32."""


class Examples(NamedTuple):
    """x [N, ...] float32, y [N] int32, and the box for any radius, shaped like x, infinite without one."""

    x: np.ndarray
    y: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Noise(NamedTuple):
    """right [N]: in all draws from the set; accuracy: on average; loss [D, N]: near x, whatever the set."""

    right: np.ndarray
    accuracy: float
    loss: np.ndarray


def host(net: LogitsFn, x: Array) -> np.ndarray:
    """Logits [N, K] of one pass outside of jit: what holds a state of its own (random numbers, say) moves on."""
    return np.asarray(net(jnp.asarray(x)))


def passes(net: LogitsFn, x: Array) -> np.ndarray:
    """[5, N, K], one after the other."""
    return np.stack([host(net, x) for _ in range(PASSES)])


def elsewhere(net: LogitsFn, x: Array) -> np.ndarray:
    """Logits [N, K] of the same examples, each seen in another place among fewer others."""
    half = (len(x) + 1) // 2
    rolled = np.roll(x, 1, axis=0)
    found = np.concatenate([host(net, rolled[:half]), host(net, rolled[half:])])
    return np.roll(found, -1, axis=0)


def gradients(net: LogitsFn, examples: Examples) -> dict[str, np.ndarray] | None:
    """By objective, at x: [N, ...]. None where the model cannot be differentiated."""
    try:
        return jax.device_get(_all_gradients(net, examples.x, examples.y))
    except MemoryError:
        raise
    except Exception:  # any part of a model may refuse, in its own words
        return None


def slopes(net: LogitsFn, examples: Examples, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Of the margin along random directions of +-1: by gradient and by central difference, each [N, D].

    At x moved inward, since many a model clips at the limits of the box.
    """
    x, y, lower, upper = examples
    if np.all(np.isfinite(upper - lower)):
        width = upper - lower
        inner = lower + (x - lower) * np.float32(1 - 8 * DIFFERENCE) + 4 * np.float32(DIFFERENCE) * width
    else:
        width, inner = np.full_like(x, np.ptp(x)), x
    found = jax.device_get(_slopes(net, inner, y, np.float32(DIFFERENCE) * width, jax.random.split(key, DIRECTIONS)))
    return found[0].T, found[1].T


def noise(net: LogitsFn, threat_at: Callable[[Array], Threat], eps: float, examples: Examples, key: Key) -> Noise:
    """100 members of the set at `eps`, and 100 points 4/255 around x."""
    keys = jax.random.split(key, DRAWS)
    right, loss = jax.device_get(_drawn(threat_at)(net, examples.x, examples.y, jnp.float32(eps), keys))
    return Noise(right.all(0), float(right.mean()), loss)


def right(net: LogitsFn, x: Array, y: Array) -> np.ndarray:
    """[N] bool, by one pass outside of jit."""
    logits = host(net, x)
    return (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)


def _right(logits: Array, y: Array) -> Array:
    """Logits that are not finite are a wrong answer, as everywhere in `evaluation`."""
    return (jnp.argmax(logits, -1) == y) & jnp.all(jnp.isfinite(logits), -1)


@jax.jit
def _all_gradients(net: LogitsFn, x: Array, y: Array) -> dict[str, Array]:
    return {o.__name__: _gradient(net, x, y, o) for o in (cross_entropy, dlr, margin)}


@jax.jit
def _slopes(net: LogitsFn, x: Array, y: Array, step: Array, keys: Key) -> tuple[Array, Array]:
    gradient = _gradient(net, x, y, margin)

    def along(key: Key) -> tuple[Array, Array]:
        shift = step * jax.random.rademacher(key, x.shape, x.dtype)
        ahead, behind = (margin(net(x + sign * shift), y) for sign in (1, -1))
        return jnp.sum((gradient * shift).reshape(len(x), -1), -1), (ahead - behind) / 2

    return jax.lax.map(along, keys)


@functools.lru_cache(maxsize=8)
def _drawn(threat_at: Callable[[Array], Threat]) -> Callable:
    @jax.jit
    def drawn(net: LogitsFn, x: Array, y: Array, eps: Array, keys: Key) -> tuple[Array, Array]:
        def one(key: Key) -> tuple[Array, Array]:
            right = _right(net(threat_at(eps).sample(x, example_keys(key, len(x)))), y)
            near = x + WIDTH * (jax.random.uniform(key, x.shape) - 0.5)
            return right, margin(net(near), y)

        return jax.lax.map(one, keys)

    return drawn


def _gradient(net: LogitsFn, x: Array, y: Array, objective: Objective) -> Array:
    return jax.grad(lambda z: jnp.sum(objective(net(z), y)))(x)
