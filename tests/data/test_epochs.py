"""Epochs on the device: coverage, and independence of where a run starts or is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustgen.data.epochs import batch_indices, indices, order_at, renew, steps_per_epoch, take
from robustgen.data.source import Split, scaled
from robustgen.knobs import KnobError


@functools.partial(jax.jit, static_argnums=(2, 3))
def defined(key, steps, n, b):
    return jax.vmap(lambda step: batch_indices(key, step, num_examples=n, batch_size=b))(steps)


def whole(key, steps, n, b):
    return np.asarray(defined(key, jnp.asarray(steps), n, b))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def scan_from(key, start, length, n, b):
    def body(order, step):
        order = renew(order, key, step, batch_size=b)
        return order, indices(order, step, batch_size=b)

    return jax.lax.scan(body, order_at(key, start, num_examples=n, batch_size=b), start + jnp.arange(length))[1]


def scanned(key, start, stop, n, b):
    return scan_from(key, start, stop - start, n, b)


def test_every_epoch_sees_every_example_exactly_once_in_a_new_order(key):
    epochs = whole(key, range(12), 12, 3).reshape(3, 12)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(12))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_partial_batch_is_dropped_and_never_doubles_an_example(key):
    epochs = whole(key, range(9), 13, 4).reshape(3, 12)
    dropped = [set(range(13)) - set(epoch.tolist()) for epoch in epochs]
    assert all(len(d) == 1 for d in dropped) and len(set.union(*dropped)) > 1


@given(st.sampled_from([(12, 5), (7, 7), (9, 1)]), st.integers(0, 10**6), st.integers(0, 2**31))
def test_a_scan_started_anywhere_sees_what_the_definition_says(sizes, start, seed):
    key = jax.random.key(seed)
    expected = whole(key, range(start, start + 8), *sizes)
    np.testing.assert_array_equal(scanned(key, start, start + 8, *sizes), expected)


@pytest.mark.parametrize("cuts", [(0, 7, 8, 20), (0, 5, 10, 15, 20), (0, 1, 19, 20)])
def test_chunked_anywhere_equals_whole(key, cuts):
    pieces = [scanned(key, a, b, 17, 3) for a, b in zip(cuts, cuts[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(pieces), scanned(key, 0, 20, 17, 3))


def test_one_trace_serves_every_step_and_a_new_key_gives_another_order(key):
    jitted = jax.jit(lambda key, step: batch_indices(key, step, num_examples=50, batch_size=10))
    batches = np.stack([jitted(key, step) for step in range(10)])
    assert jitted._cache_size() == 1
    np.testing.assert_array_equal(batches, whole(key, range(10), 50, 10))
    assert (jitted(jax.random.key(1), 0) != batches[0]).any()


def test_permutations_are_uniform(key):
    firsts = jax.vmap(lambda e: order_at(key, e * 2, num_examples=4, batch_size=2).permutation)(jnp.arange(6000))
    codes = np.asarray(firsts) @ np.array([64, 16, 4, 1])
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 250) ** 2 / 250).sum() < 49.7  # chi-square, 23 degrees of freedom: exceeded once in 1000


def test_sorting_happens_once_an_epoch_only(key):
    text = scan_from.lower(key, 0, 40, 64, 8).as_text()
    assert "stablehlo.case" in text or "stablehlo.if" in text
    population = jax.jit(jax.vmap(lambda k: scan_from(k, 0, 40, 64, 8))).lower(jax.random.split(key, 3)).as_text()
    assert "stablehlo.case" in population or "stablehlo.if" in population  # a select would sort at every step


def test_population_of_keys_sees_each_its_own_order(key):
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda k: scanned(k, 2, 9, 10, 5))(keys)
    np.testing.assert_array_equal(together, np.stack([scanned(k, 2, 9, 10, 5) for k in keys]))


def test_taken_batches_are_the_scaled_examples_bit_for_bit():
    split = Split(np.arange(256, dtype=np.uint8).reshape(256, 1), np.arange(256, dtype=np.int32))
    index = jnp.array([255, 0, 7, 7])
    batch = jax.jit(lambda s, i: take(s, i, 1 / 255))(jax.device_put(split), index)
    np.testing.assert_array_equal(batch.x, scaled(split, 1 / 255).x[np.asarray(index)])
    assert batch.x.dtype == jnp.float32 and batch.x.max() == 1 and batch.x.min() == 0
    np.testing.assert_array_equal(batch.y, index)


def test_batches_larger_than_the_data_are_refused(key):
    with pytest.raises(KnobError, match="batch_size: must not exceed the 10 examples"):
        batch_indices(key, 0, num_examples=10, batch_size=11)
    assert steps_per_epoch(10, 4) == 2
