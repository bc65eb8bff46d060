"""A population is many runs at once: each member is the run it would have been alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, losses, optim, parallel, population, threats, train
from robustgen.attacks import starts
from robustgen.core import Batch, Net, Stream

ATTACK = attacks.pgd(
    threats.linf(0.1), objective=attacks.kl, step_size=0.05, num_steps=2, start=starts.gaussian(scale=0.001)
)


def apply_fn(variables, x, train, mutable=None, rngs=None):
    logits = jnp.tanh(x @ variables["params"]["w"]) @ variables["params"]["v"]
    return logits if mutable is None else (logits, {})


def init_net(key):
    w, v = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key), ((4, 8), (8, 3)), strict=True))
    return Net({"w": w, "v": v}, {}, apply_fn)


def batch_of(key, step):
    x = jax.random.uniform(jax.random.fold_in(key, step), (32, 4))
    return Batch(x, jnp.argmax(x[:, :3], 1).astype(jnp.int32))


STREAM = Stream(lambda key, step: (), lambda carry, key, step: (batch_of(key, step), carry))


def learner_at(values):
    tx = optim.sgd(learning_rate=values["optimizer.learning_rate"], momentum=0.9, weight_decay=0.0)
    return train.Learner(apply_fn, lambda step: losses.trades(ATTACK, beta=values["loss.beta"]), tx, 0.9)


POPULATION = population.grid([3, 4], {"loss.beta": [0.0, 6.0], "optimizer.learning_rate": [0.1, 0.2]})
TRACES = []


@functools.cache
def advance(length):
    def step(state, values):
        TRACES.append(length)
        return population.population_chunk(learner_at, STREAM, state, values, length=length)

    return jax.jit(step, donate_argnums=0)


def run(values, length=6):
    state = population.init_population(learner_at, init_net, POPULATION)
    return advance(length)(state, values)


def test_a_member_is_the_run_it_would_be_alone(x64):
    state, metrics = run(POPULATION.values)

    @jax.jit
    def single(seed, values):
        learner, key = learner_at(values), jax.random.key(seed)
        return train.chunk(learner, STREAM, train.init(learner, init_net(key), key), length=6)

    for member in (0, 3, 6):
        alone, alone_metrics = single(POPULATION.seeds[member], POPULATION.describe(member))
        theirs = population.member_state(state, member)
        assert int(theirs.step) == 6 and jax.tree.structure(theirs) == jax.tree.structure(alone)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), theirs, alone)
        np.testing.assert_allclose(metrics["loss"][member], alone_metrics["loss"], rtol=1e-6)


def test_members_spread_over_devices_are_what_they_are_on_one(x64):
    """On CPU devices a loop instead of a vmap, of this device's members and values; in double precision the same."""
    backend = parallel.members(len(POPULATION.seeds))
    assert backend.num_devices == 8 and parallel.members(15).num_devices == 5 and parallel.members(11).num_devices == 1
    pairs = parallel.members(4)  # two members a device
    expected = run(POPULATION.values)

    def step(state, values):
        return population.population_chunk(learner_at, STREAM, state, values, length=6)

    for spread in (backend, pairs):
        state = spread.place(population.init_population(learner_at, init_net, POPULATION))
        found = spread.compile(step)(state, spread.place(POPULATION.values))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), found, expected)
        again = parallel.on_this_process(found[0].params["w"])
        assert len(again.devices()) == 1 and len(found[0].params["w"].devices()) > 1


def test_members_differ_by_seed_and_by_value_and_are_named():
    state, _ = run(POPULATION.values)
    weights = np.asarray(state.params["w"]).reshape(8, -1)
    assert len(np.unique(weights.round(4), axis=0)) == 8
    np.testing.assert_array_equal(POPULATION.seeds, [3, 4] * 4)
    assert POPULATION.describe(2) == {"loss.beta": 0.0, "optimizer.learning_rate": pytest.approx(0.2)}


def test_one_compile_for_every_value():
    run(POPULATION.values)
    before = len(TRACES)
    run({**POPULATION.values, "loss.beta": np.linspace(1, 8, 8, dtype=np.float32)})
    assert len(TRACES) == before


def test_a_member_that_diverges_is_told_and_spoils_no_other():
    """One member's loss is infinite from the first step on: it keeps its parameters, the others do not notice."""
    healthy, _ = run(POPULATION.values)
    beta = POPULATION.values["loss.beta"].copy()
    beta[5] = np.inf
    begin = jax.tree.map(np.asarray, population.init_population(learner_at, init_net, POPULATION).params)
    state, metrics = run({**POPULATION.values, "loss.beta": beta})
    np.testing.assert_array_equal(population.diverged(metrics), np.arange(8) == 5)
    others = np.arange(8) != 5
    for name in begin:
        np.testing.assert_array_equal(state.params[name][5], begin[name][5])
        np.testing.assert_array_equal(state.params[name][others], healthy.params[name][others])
    assert int(state.step) == 6
