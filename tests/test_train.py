"""The training loop: chunks change nothing, failures are named, averages are what they are called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustgen import attacks, losses, optim, threats, train
from robustgen.core import Aux, Batch, Net
from robustgen.data import Split
from robustgen.data.stream import stream

DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (50, 4)).astype(np.uint8)
X[:, 0] = np.arange(50)
SPLIT = Split(jnp.asarray(X), jnp.asarray(X[:, :3].argmax(1), jnp.int32))
STREAM = stream(SPLIT, 1 / 255, batch_size=8)
ATTACK = attacks.pgd(threats.linf(0.1), objective=attacks.cross_entropy, step_size=0.05, num_steps=2)


def apply_fn(variables, x, train, mutable=None, rngs=None):
    hidden = x @ variables["params"]["w"]
    mean = hidden.mean(0) if train else variables["batch_stats"]["mean"]
    logits = jnp.tanh(hidden - mean) @ variables["params"]["v"]
    running = {"batch_stats": {"mean": 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean}}
    return logits if mutable is None else (logits, running)


def fresh():
    draw = np.random.default_rng(1).standard_normal
    params = {"w": jnp.asarray(draw((4, 8)), jnp.float32), "v": jnp.asarray(draw((8, 3)), jnp.float32)}
    return Net(params, {"batch_stats": {"mean": jnp.zeros(8)}}, apply_fn)


def learner(loss=None, ema_decay=0.9):
    tx = optim.sgd(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
    loss = loss or losses.pgd_at(ATTACK)
    return train.Learner(apply_fn, lambda step: loss, tx, ema_decay)


@functools.cache
def advance(of=learner):
    run = jax.jit(functools.partial(train.chunk, of(), STREAM), static_argnames="length")
    return lambda state, length: run(state, length=length)


def begin(of=learner):
    return train.init(of(), fresh(), jax.random.key(5))


def test_where_chunks_begin_and_end_changes_no_bit():
    """17 steps over 6-step epochs: in one, in uneven pieces across epochs, and resumed from host arrays."""
    whole, metrics = advance()(begin(), 17)
    state, pieces = begin(), []
    for length in (5, 1, 6, 5):
        state, seen = advance()(jax.tree.map(np.asarray, state), length)
        pieces.append(seen)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    together = jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)
    jax.tree.map(np.testing.assert_array_equal, together, metrics)
    assert int(whole.step) == 17 and metrics["loss"].shape == (17,)


def test_an_epoch_has_each_example_once_at_most_and_the_next_another_order():
    """48 of 50 examples, 6 batches: the first feature tells which example it is."""

    def loss(net, batch, key):
        return jnp.sum(net.params["w"]) * 0.0, Aux(net.state, {"examples": batch.x[:, 0] * 255})

    of = functools.partial(learner, loss)
    _, metrics = advance(of)(begin(of), 12)
    epochs = np.asarray(metrics["examples"]).round().reshape(2, 48)
    assert all(len(np.unique(epoch)) == 48 for epoch in epochs)
    assert not np.array_equal(*epochs)


def spoilt_at(step):
    """A learner whose loss is NaN at one step."""

    def loss_at(now):
        def loss(net, batch, key):
            value, aux = losses.standard()(net, batch, key)
            return jnp.where(now == step, jnp.nan, 1.0) * value, aux

        return loss

    return learner()._replace(loss_at=loss_at)


def test_a_step_that_is_not_finite_changes_nothing_and_is_named():
    of = functools.partial(spoilt_at, 4)
    run = advance(of)
    before, _ = run(begin(of), 4)
    after, metrics = run(before, 1)
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=before.step), before)
    assert int(after.step) == 5 and not np.isfinite(metrics["grad_norm"][0])
    spans = train.fit(run, begin(of), num_steps=9, span=3, guard=train.stop_if_not_finite)
    assert next(spans).step == 3
    with pytest.raises(train.TrainingFailed, match="step 4: loss nan") as failure:
        next(spans)
    assert "\n" not in str(failure.value) and "learning rate" in str(failure.value)


def test_fit_ends_spans_at_multiples_wherever_it_is_resumed():
    state, _ = advance()(begin(), 5)
    spans = list(train.fit(advance(), state, num_steps=17, span=6))
    assert [span.step for span in spans] == [6, 12, 17]
    whole, metrics = advance()(begin(), 17)
    jax.tree.map(np.testing.assert_array_equal, spans[-1].state, whole)
    np.testing.assert_allclose(spans[1].metrics["loss"], np.mean(metrics["loss"][6:12]), rtol=1e-6)


def test_ema_of_parameters_and_batch_statistics_against_numpy():
    """decay_t = min(decay, (1 + t) / (10 + t)), from the parameters before the first step."""
    state = begin()
    expected = {"params": fresh().params, "state": fresh().state}
    for step in range(12):
        state, _ = advance()(state, 1)
        decay = min(0.9, (1 + step) / (10 + step))
        now = {"params": state.params, "state": state.state}
        average = functools.partial(np.average, axis=0, weights=[decay, 1 - decay])
        expected = jax.tree.map(lambda *pair: average(np.stack(pair)), expected, now)  # noqa: B023
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.ema, expected)
    net = train.final_net(state, apply_fn)
    np.testing.assert_array_equal(net.params["w"], state.ema["params"]["w"])
    plain = begin(lambda: learner(ema_decay=0.0))
    assert plain.ema == {} and train.final_net(plain, apply_fn).params is plain.params


def test_one_step_is_a_gradient_step():
    """Against the gradient taken by hand and the optimizer applied to it."""
    state, batch = begin(), Batch(jnp.asarray(X[:8] / 255, jnp.float32), SPLIT.y[:8])
    after, metrics = train.train_step(learner(losses.standard()), state, batch)

    def value(params):
        logits = apply_fn({"params": params, **state.state}, batch.x, True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    gradient = jax.grad(value)(state.params)
    for name, p in state.params.items():
        np.testing.assert_allclose(after.params[name], p - 0.1 * (gradient[name] + 5e-4 * p), rtol=1e-5, atol=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradient.values()))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], value(state.params), rtol=1e-6)


def test_collapse_is_reported_after_patience_and_forgiven_after_recovery():
    guard = train.stop_if_collapsed(num_classes=10, patience=30)
    chance, good = ({"adv_accuracy": np.full(10, level)} for level in (0.1, 0.5))
    for first_step, metrics in enumerate([chance, chance, good, chance, chance, {"loss": np.zeros(10)}]):
        guard(10 * first_step, metrics)
    with pytest.raises(train.TrainingFailed, match=r"step 70: .* at chance \(10.0%\) for 30 steps"):
        guard(60, chance)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 6), (2.5, 15), (0.01, 1), (10, 60)])
def test_steps_in(epochs, expected):
    assert train.steps_in(epochs, num_examples=50, batch_size=8) == expected
