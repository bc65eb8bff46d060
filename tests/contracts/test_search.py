"""What every search promises: as a plain attack, and row by row in a cascade."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.attacks.search import Cascade, Item, as_attack, runs
from robustgen.cascade.whole import evaluate
from robustgen.spread import example_keys
from robustgen.threats.geometry import per_example

Y = jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1], jnp.int32)
SETS = {"square_l2": threats.l2, "square_l1": threats.l1, "apgd_l1": threats.l1, "apgd_l1_targeted": threats.l1}
"""The set of radius 0.1 that a search without a `threat` knob works in, where it is not Linf."""


@functools.cache
def built(search_case):
    """The search, in a set of radius 0.1."""
    return search_case.build(threats.linf(0.1), **({"eps": 0.1} if "eps" in search_case.knobs() else {}))


def set_of(search_case):
    return SETS.get(search_case.name, threats.linf)(0.1)


@functools.cache
def compiled(search_case):
    attack = as_attack(built(search_case))
    return jax.jit(lambda net, x, y, key: attack(net, x, y, key))


def excess(threat, x, x_adv):
    """How far, in float64, projection onto the set still moves x_adv."""
    with jax.enable_x64(True):
        x, x_adv = (jnp.asarray(np.asarray(z), jnp.float64) for z in (x, x_adv))
        return float(jnp.max(jnp.abs(threat.project(x, x_adv) - x_adv)))


def test_as_an_attack_it_stays_inside_and_never_does_worse_than_x(search_case, inputs, net, key):
    x, model = inputs((8, 2, 2, 1)), net()
    x_adv = compiled(search_case)(model, x, Y, key)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert excess(set_of(search_case), x, x_adv) <= 1e-12
    before, after = (attacks.margin(model(z), Y) for z in (x, x_adv))
    assert np.all(after >= before)
    np.testing.assert_array_equal(x_adv, compiled(search_case)(model, x, Y, key))


def test_a_row_depends_on_nothing_but_itself(search_case, inputs, net, key):
    x, keys, model = inputs((8, 2, 2, 1)), example_keys(key, 8), net()
    together = compiled(search_case)(model, x, Y, keys)
    turned = compiled(search_case)(model, x[::-1].at[:4].set(0.5), Y[::-1].at[:4].set(0), keys[::-1])
    np.testing.assert_allclose(turned[4:], together[:4][::-1], rtol=0, atol=1e-6)


def test_rows_may_be_at_different_steps(search_case, inputs, net, key):
    """A row that begins later does what it would have done: the step counter is its own."""
    search, model, x = built(search_case), net(), inputs((8, 2, 2, 1))
    rank, restart = (jnp.full(8, number, jnp.int32) for number in runs(search, 3)[0])
    item = Item(x, Y, (Y + 1) % 3, restart, example_keys(key, 8))
    step = jax.jit(lambda item, t, memory: search.step(model, item, t, memory))
    begin, late = search.begin(item), np.arange(8) >= 4
    memory, t = begin, np.zeros(8, np.int32)
    alone, points = begin, []
    for i in range(3):
        alone, tried = step(item, jnp.full(8, i, jnp.int32), alone)
        points.append(np.asarray(tried.x))
    for i in range(4):
        memory, tried = step(item, jnp.asarray(t), memory)
        if i == 0:
            memory = jax.tree.map(lambda new, old: jnp.where(per_example(late, new), old, new), memory, begin)
        t = t + np.where(late & (i == 0), 0, 1).astype(np.int32)
        if i < 3:
            np.testing.assert_allclose(np.asarray(tried.x)[~late], points[i][~late], rtol=0, atol=1e-6)
        if i > 0:
            np.testing.assert_allclose(np.asarray(tried.x)[late], points[i - 1][late], rtol=0, atol=1e-6)


def test_its_first_success_is_what_a_cascade_records(search_case, inputs, net):
    """Broken in a cascade exactly where the plain attack, with the keys of the cascade, finds a wrong class."""
    search, model, x = built(search_case), net(), np.asarray(inputs((8, 2, 2, 1)))
    y = np.asarray(model(x)).argmax(-1).astype(np.int32)
    found = evaluate(
        Cascade("one", set_of(search_case), (search,)), model, x, y, seed=0, width=32, devices=jax.devices()[:1]
    )
    assert found.columns["clean"].all()
    broken = ~found.columns["robust:one"]
    np.testing.assert_array_equal(np.asarray(model(found.x_adv)).argmax(-1) != y, broken)
    np.testing.assert_array_equal(found.columns["iteration:one"] > 0, broken)
    assert found.spent[0] <= 8 * len(runs(search, 3)) * search.num_steps * search.forwards


@pytest.mark.parametrize("num_classes", [2, 5])
def test_any_number_of_classes_and_flat_inputs(search_case, inputs, net, key, num_classes):
    x = inputs((4, 5))
    x_adv = jax.jit(as_attack(built(search_case)), static_argnums=0)(
        net(5, num_classes).__call__, x, Y[:4] % num_classes, key
    )
    assert x_adv.shape == x.shape and bool(jnp.all(jnp.isfinite(x_adv)))
