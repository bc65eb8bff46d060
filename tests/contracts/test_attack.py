"""What every attack promises, whatever its threat set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.spread import example_keys

Y = jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1], jnp.int32)
OF_THEIR_OWN = ("spatial", "spatial_random")  # attacks that take no Threat: no ball holds their set


@functools.cache
def compiled(attack_case, threat_case):
    """(net, spoilt [B], eps, x, y, key) -> x_adv. `spoilt` is added to the logits; eps counts where the threat has one.

    With a judge, where the factory takes one: only then does an attack promise not to do worse than x."""

    @jax.jit
    def run(model, spoilt, eps, x, y, key):
        threat = threat_case.build(**{"eps": eps} if "eps" in threat_case.knobs() else {})
        knobs = {"judge": attacks.margin} if "judge" in attack_case.knobs() else {}
        return attack_case.build(threat, **knobs)(lambda z: model(z) + spoilt[:, None], x, y, key)

    return run


@pytest.fixture
def attack(attack_case, threat_case, net):
    """attack(x, y, key, spoilt, eps, num_classes) -> x_adv of a small net, eps being the sample threat's if None."""
    if threat_case.name == "l0_pixels":
        pytest.skip("with one channel the same as l0")
    if attack_case.name in OF_THEIR_OWN and threat_case.name != "box":
        pytest.skip("it has a set of its own, of images: what the box of all pixels holds")
    if threat_case.name in ("l0", "l0_pixels", "l1") and attack_case.name not in ("pgd", "as_attack"):
        pytest.skip("two attacks are enough for these sets: every pair is a compile")
    radius = threat_case.radius() if "eps" in threat_case.knobs() else 0.0

    def run(x, y, key, spoilt=0.0, eps=None, num_classes=3):
        eps = radius if eps is None else eps
        model = net(int(np.prod(x.shape[1:])), num_classes)
        spoilt = jnp.broadcast_to(spoilt, len(x))
        return compiled(attack_case, threat_case)(model, spoilt, threats.round_down(eps, np.float32), x, y, key)

    return run


def test_stays_inside_its_set_and_gains(attack, inside, inputs, net, key):
    x, model = inputs((8, 2, 2, 1)), net()
    x_adv = attack(x, Y, key)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert inside(x, x_adv)
    before, after = (attacks.margin(model(z), Y) for z in (x, x_adv))
    assert np.all(after >= before) and jnp.mean(after) > jnp.mean(before)
    np.testing.assert_array_equal(x_adv, attack(x, Y, key))


def test_a_net_that_gives_nan_harms_no_member(attack, inside, inputs, key):
    """Neither where all logits are NaN, nor where one example's are."""
    x = inputs((8, 2, 2, 1))
    third = np.arange(8) == 2
    spoilt = attack(x, Y, key, spoilt=jnp.where(third, jnp.nan, 0.0))
    assert inside(x, spoilt)
    np.testing.assert_array_equal(spoilt[~third], attack(x, Y, key)[~third])
    assert inside(x, attack(x, Y, key, spoilt=jnp.nan))


def test_radius_zero_returns_x(attack, threat_case, inputs, key):
    if "eps" not in threat_case.knobs():
        pytest.skip(f"{threat_case.name} has no radius")
    x = inputs((8, 2, 2, 1))
    np.testing.assert_array_equal(attack(x, Y, key, eps=0.0), x)


def test_an_example_is_attacked_alike_in_any_batch(attack, inputs, key):
    """With keys of their own, examples may change places and neighbours; one key stands for `example_keys` of it."""
    x, keys = inputs((8, 2, 2, 1)), example_keys(key, 8)
    together = attack(x, Y, keys)
    np.testing.assert_array_equal(attack(x, Y, key), together)
    turned = attack(x[::-1].at[:4].set(0.5), Y[::-1].at[:4].set(0), keys[::-1])
    np.testing.assert_allclose(turned[4:], together[:4][::-1], rtol=0, atol=1e-6)


def test_flat_inputs_and_two_classes(attack, threat_case, inputs, key):
    if threat_case.name != "linf":
        pytest.skip("one set is enough")
    x = inputs((8, 5))
    x_adv = attack(x, Y % 2, key, num_classes=2)
    assert x_adv.shape == x.shape and jnp.all(jnp.isfinite(x_adv)) and jnp.any(x_adv != x)


def test_start_is_shaped_like_x_and_goes_by_example(start_case, inputs, key):
    x, threat = inputs((8, 2, 2, 1)), threats.linf(0.1)
    start = jax.jit(functools.partial(start_case.build(), threat))
    keys = example_keys(key, len(x))
    begin = start(x, keys)
    assert begin.shape == x.shape and begin.dtype == x.dtype and jnp.any(begin != x)
    np.testing.assert_array_equal(start(x[3:4], keys[3:4])[0], begin[3])


def test_objective_is_per_example_and_finite(objective, key):
    logits = 50 * jax.random.normal(key, (8, 3))
    target = logits[::-1] if objective is attacks.kl else Y
    values = jax.jit(objective)(logits, target)
    assert values.shape == (8,) and values.dtype == jnp.float32 and jnp.all(jnp.isfinite(values))
    np.testing.assert_allclose(values[3:4], objective(logits[3:4], target[3:4]), rtol=1e-5)
    np.testing.assert_allclose(values, objective(logits + 100.0, target), rtol=1e-4, atol=1e-3)
