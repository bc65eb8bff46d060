"""Runs an attack on binarized models: see `evaluation.validity.binarization`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key, LogitsFn, Threat
from robustgen.evaluation.validity import binarization
from robustgen.evaluation.validity.finding import Finding
from robustgen.spread import example_keys
from robustgen.validity.evaluated import AttackAt


def binarization_test(
    features_fn: LogitsFn, attack_at: AttackAt, threat_at: Callable[[Array], Threat], eps: float, x: Array, key: Key,
    num_inner: int,
) -> Finding:  # fmt: skip
    """`features_fn`: x [N, ...] -> [N, ...]: what heads of num_inner points are put on."""
    radius, keys = jnp.float32(eps), example_keys(key, len(x))
    inner, outer = jax.device_get(_features(threat_at, num_inner)(features_fn, x, radius, keys))
    made = binarization.heads(inner, outer)
    run = _attacked(attack_at, threat_at)
    found, random = jax.device_get(run(features_fn, made.weight, made.bias, x, radius, jax.random.fold_in(key, 1)))
    return binarization.success(made.separates, found, random)


@functools.lru_cache(maxsize=8)
def _features(threat_at: Callable[[Array], Threat], num_inner: int) -> Callable:
    @jax.jit
    def features(features_fn: LogitsFn, x: Array, eps: Array, keys: Key) -> tuple[Array, Array]:
        inner, outer = binarization.points(threat_at(binarization.INNER * eps), threat_at(eps), x, keys, num_inner)
        flat = jax.lax.map(lambda z: features_fn(z).reshape(len(x), -1), jnp.concatenate([inner, outer[None]]))
        return flat[:-1], flat[-1]

    return features


@functools.lru_cache(maxsize=8)
def _attacked(attack_at: AttackAt, threat_at: Callable[[Array], Threat]) -> Callable:
    @jax.jit
    def attacked(
        features_fn: LogitsFn, weight: Array, bias: Array, x: Array, eps: Array, key: Key
    ) -> tuple[Array, Array]:
        threat, model = threat_at(eps), binarization.binarized(features_fn, weight, bias)
        x_adv = attack_at(threat, eps)(model, x, jnp.zeros(len(x), jnp.int32), key)
        return _inside(model, x_adv), _blind(model, threat, x, key)

    return attacked


def _inside(model: LogitsFn, x: Array) -> Array:
    return jnp.argmax(model(x), -1) == 1


def _blind(model: LogitsFn, threat: Threat, x: Array, key: Key) -> Array:
    """Whether any of 200 points got there, half of them from within, half from the rim."""

    def one(key: Key) -> Array:
        keys = example_keys(key, len(x))
        return _inside(model, threat.sample(x, keys)) | _inside(model, binarization.rim(threat, x, keys))

    keys = jax.random.split(jax.random.fold_in(key, 2), binarization.RANDOM_POINTS // 2)
    return jnp.any(jax.lax.map(one, keys), axis=0)
