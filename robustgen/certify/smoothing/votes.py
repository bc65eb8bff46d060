"""How a classifier votes under Gaussian noise: the pure, compiled part of randomized smoothing.

The noise of a sample is drawn from (key of the example, number of the sample) and nothing else: the batch size, the
stretches that counting is done in and the devices do not show in it, and a longer run begins with a shorter one's
samples. Counts are whole numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, LogitsFn
from robustgen.knobs import Count, CountOrZero, KnobError, Positive, checked


class Plan(NamedTuple):
    """What is drawn for each example: noise of standard deviation `sigma`, in the units of x, for `num_selection`
    samples (n0 in the paper) that choose the class and then `num_samples` (n) that its probability is judged by."""

    sigma: float
    num_selection: int
    num_samples: int

    @property
    def total(self) -> int:
        """Samples of one example."""
        return self.num_selection + self.num_samples


class Votes(NamedTuple):
    """Votes counted so far. selection, estimation [..., K]: samples of each kind that the model called class k.

    A sample whose logits are not finite votes for no class, and still counts as drawn.
    """

    selection: np.ndarray
    estimation: np.ndarray


@checked
def plan(*, sigma: Positive, num_selection: CountOrZero, num_samples: Count) -> Plan:
    """Cohen et al. 2019 (arXiv 1902.02918) draw num_selection = 100 and num_samples = 100 000.

    `predict` needs no selection samples. Raises `KnobError` from 2^31 samples on, which 32-bit counts could not hold.
    """
    if num_selection + num_samples >= 2**31:
        raise KnobError("num_samples", f"must be below 2^31 with the selection's {num_selection}; got {num_samples}")
    return Plan(sigma, num_selection, num_samples)


def count(
    logits_fn: LogitsFn, x: Array, key: Key, plan: Plan, *, start: Array | int, stop: Array | int, batch_size: int
) -> Votes:
    """Votes of the samples start <= number < stop of one example x [...], [K] int32 each; jit it, map it over examples.

    Forward passes are of `batch_size` rows; those of the last that are not asked for are drawn and not counted. Within
    one width a row's logits do not depend on its place, but another width may round them differently, which shows
    where a sample lies that close to the border of two classes.
    """
    rows = jnp.arange(batch_size)

    def add(index: Array, votes: Votes) -> Votes:
        numbers = start + index * batch_size + rows
        logits = logits_fn(x + plan.sigma * noise(key, numbers, x))
        valid = (numbers < stop) & jnp.all(jnp.isfinite(logits), -1)
        hits = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1], dtype=jnp.int32)
        selects = numbers < plan.num_selection
        found = ((jnp.where((valid & kind)[:, None], hits, 0)).sum(0, dtype=jnp.int32) for kind in (selects, ~selects))
        return Votes(*map(jnp.add, votes, found))

    num_classes = jax.eval_shape(logits_fn, jax.ShapeDtypeStruct((batch_size, *x.shape), x.dtype)).shape[-1]
    num_batches = (stop - start + batch_size - 1) // batch_size
    return jax.lax.fori_loop(0, num_batches, add, Votes(*2 * (jnp.zeros(num_classes, jnp.int32),)))


def noise(key: Key, numbers: Array, x: Array) -> Array:
    """N(0, 1) noise [S, *x.shape] of the samples `numbers` [S] of one example."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return jax.vmap(lambda one: jax.random.normal(one, x.shape, x.dtype))(keys)
