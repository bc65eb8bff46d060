"""What augmentations, optimizers and networks promise, and what every factory refuses."""

import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustgen import losses
from robustgen.core import Batch, Net
from robustgen.knobs import KnobError, Range
from robustgen.models import init
from robustgen.spread import example_keys

Y = jnp.asarray([0, 1, 2, 0], jnp.int32)


def test_augment_goes_by_example(augment_case, inputs, key):
    x, keys = inputs((8, 6, 6, 2)), example_keys(key, 8)
    augment = jax.jit(augment_case.build())
    out = augment(x, keys)
    assert out.shape == x.shape and out.dtype == x.dtype and jnp.all((out >= 0) & (out <= 1))
    np.testing.assert_array_equal(augment(x[3:4], keys[3:4])[0], out[3])
    np.testing.assert_array_equal(augment(x[::-1], keys[::-1]), out[::-1])


def test_optimizer_descends_and_keeps_its_structure(optimizer_case):
    tx, params = optimizer_case.build(), {"w": jnp.ones((2, 3)), "b": jnp.full(3, -2.0)}
    state = first = tx.init(params)
    before = optax.tree.norm(params)
    for _ in range(5):
        updates, state = jax.jit(tx.update)(params, state, params)  # the gradient of |params|^2 / 2
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)
    assert optax.tree.norm(params) < before


def test_network_gives_float32_logits_and_its_gradient_has_its_shapes(module_case, key):
    """Traced, not run: the numbers of each network are tested beside it."""

    def loss(net: Net, batch: Batch) -> tuple:
        return losses.standard()(net, batch, key)

    module = module_case.build()
    net = jax.eval_shape(lambda: init(module, (28, 28, 1), key))
    batch = Batch(jnp.zeros((4, 28, 28, 1)), Y)
    logits = jax.eval_shape(lambda net: net(batch.x), net)
    assert logits.shape == (4, 3) and logits.dtype == jnp.float32
    grads, aux = jax.eval_shape(lambda net: jax.grad(loss, has_aux=True)(net, batch), net)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads.params, net.params)
    chex.assert_trees_all_equal_shapes_and_dtypes(aux.state, net.state)


def wrong_values(annotation) -> list:
    """Values that no number of this annotation should have; empty for what is not a number."""
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *ranges = typing.get_args(annotation)
        found = wrong_values(kind)
        for accepted in (r for r in ranges if isinstance(r, Range)):
            found += [value for value in (accepted.low - 1, accepted.high + 1) if np.isfinite(value)]
            found += [accepted.low] if accepted.open_low else []
            found += [accepted.high] if accepted.open_high else []
        return found
    if annotation in (int, float):
        return [float("nan"), float("inf"), "1", True, None] + ([1.5] if annotation is int else [])
    if typing.get_origin(annotation) is tuple and typing.get_args(annotation)[-1] is Ellipsis:
        return [(value,) for value in wrong_values(typing.get_args(annotation)[0])]
    numbers = [wrong_values(member) for member in typing.get_args(annotation)]
    optional = type(None) in typing.get_args(annotation)
    return [value for value in max(numbers, key=len, default=[]) if not (optional and value is None)]


def test_every_number_is_refused_by_name_when_it_is_none(any_case):
    for knob, annotation in any_case.knobs().items():
        for value in wrong_values(annotation) if typing.get_origin(annotation) is not dict else ():
            with pytest.raises(KnobError) as refusal:
                any_case.build(**{knob: value})
                pytest.fail(f"{any_case.name} accepts {knob}={value!r}")
            assert refusal.value.knob == knob and str(refusal.value).startswith(f"{knob}: ")
            assert "\n" not in str(refusal.value)
