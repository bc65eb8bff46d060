"""Defences that are broken on purpose: each hides weakness without mending it.

All but one are the same function of other numbers, so that a whole suite of checks is compiled once for all of them,
and for the honest nets.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, LogitsFn, Net

PLAIN = {
    "input_levels": 0.0, "hidden_levels": 0.0, "input_scale": 1.0, "logit_scale": 1.0, "keep": 1.0, "detached": 0.0,
    "leak": 0.0,
}  # fmt: skip
"""Levels that inputs and hidden values are rounded to, 0 for none; share of hidden values that dropout keeps; whether
gradients see only a small branch beside; how loud the label is that is read off the perturbation."""


def defended(net: Net, templates: Array | None = None, **changed: float) -> Net:
    """`net`, an mlp of three layers, with `PLAIN` `changed`; PLAIN itself is the honest net."""
    named = sorted(net.params.items(), key=lambda item: int(item[0].rsplit("_", 1)[1]))
    layers = [(layer["kernel"], layer["bias"]) for _, layer in named]
    knobs = {name: jnp.float32(value) for name, value in {**PLAIN, **changed}.items()}
    templates = jnp.zeros((10, 64)) if templates is None else templates
    beside = jnp.asarray(np.random.default_rng(0).standard_normal((64, 10)), jnp.float32)
    return Net({"layers": layers, "knobs": knobs, "templates": templates, "beside": beside}, {}, _apply)


def _apply(variables: dict[str, Any], x: Array, train: bool) -> Array:
    params, knobs = variables["params"], variables["params"]["knobs"]
    flat = x.reshape(len(x), -1)
    z = jnp.where(knobs["detached"] > 0, jax.lax.stop_gradient(flat), flat)
    z = _quantised(z * knobs["input_scale"], knobs["input_levels"])
    *hidden, (kernel, bias) = params["layers"]
    for (weight, shift), key in zip(hidden, jax.random.split(jax.random.key(0), len(hidden)), strict=True):
        z = _quantised(jax.nn.relu(z @ weight + shift), knobs["hidden_levels"])
        z = jnp.where(jax.random.uniform(key, z.shape) < knobs["keep"], z / knobs["keep"], 0)
    over = jax.lax.stop_gradient(flat - jnp.round(16 * flat) / 16)  # pixels are k / 16: the rest is the perturbation
    beside = 0.05 * knobs["detached"] * flat @ params["beside"]
    return knobs["logit_scale"] * (z @ kernel + bias + beside) + knobs["leak"] * over @ params["templates"].T


def _quantised(x: Array, levels: Array) -> Array:
    return jnp.where(levels > 0, jnp.round(levels * x) / jnp.maximum(levels, 1), x)


def signs(net: Net, x: Array, y: Array) -> Array:
    """The mean sign of a single step for each label, [10, 64]: what a net that leaks labels knows of its attacker."""

    def loss(x: Array) -> Array:
        return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(net(x)), y[:, None], 1))

    found, rows = jnp.sign(jax.grad(loss)(x)).reshape(len(x), -1), jax.nn.one_hot(y, 10)
    return rows.T @ found / jnp.sum(rows, 0)[:, None]


def noisy(net: LogitsFn) -> LogitsFn:
    """Gaussian noise from a generator of its own, another draw at each pass."""
    count = itertools.count()

    def model(x: Array) -> Array:
        return net(jnp.clip(x + 0.1 * jax.random.normal(jax.random.key(next(count)), x.shape), 0, 1))

    return model
