"""Attacks taken apart into steps, so that a cascade can give a slot to the next example the moment one is broken.

A `Search` knows nothing of batches: each row of its arrays is an example with a goal, a key and a memory of its own,
and rows may be at different steps. `as_attack` makes a plain `Attack` of one; `robustgen.cascade` runs many, slot by
slot.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import margin
from robustgen.attacks.pgd import Best, better
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree, Threat
from robustgen.spread import example_keys


class Item(NamedTuple):
    """What a row works on: x [B, ...] clean, y [B] its label, target [B] the class aimed at (y where a search aims at
    none), restart [B] int32 counted from 0, key [B] of its own."""

    x: Array
    y: Array
    target: Array
    restart: Array
    key: Key


class Tried(NamedTuple):
    """The points a step has evaluated: x [B, ...], their logits [B, K] (or [B, S, K], of S draws of a randomised
    model), and whether they are members of the set [B]."""

    x: Array
    logits: Array
    inside: Array


class Search(NamedTuple):
    """An iterative attack, one step at a time.

    name          as in tables and log lines; what its random numbers are folded from
    settings      its knobs, as plain numbers and names, for the record
    begin         item -> memory [B, ...]: where it starts; evaluates no net
    step          (logits_fn, item, t [B], memory) -> (memory, Tried): evaluates, then moves. t counts from 0
    num_steps     steps after which a row is given up
    num_targets   classes each example is tried with: the most likely wrong ones at x. 0: goes for any wrong class
    num_restarts  runs for each target
    forwards, backwards   evaluations that a step costs an example
    """

    name: str
    settings: dict[str, Any]
    begin: Callable[[Item], PyTree]
    step: Callable[[LogitsFn, Item, Array, PyTree], tuple[PyTree, Tried]]
    num_steps: int
    num_targets: int
    num_restarts: int
    forwards: int
    backwards: int


class Cascade(NamedTuple):
    """Searches in the order they are run, each on what those before it left standing, all within `threat`. `name` is
    what tables call the whole."""

    name: str
    threat: Threat
    searches: tuple[Search, ...]


def runs(search: Search, num_classes: int) -> list[tuple[int, int]]:
    """(rank, restart) of every run that an example gets, in order. Rank j aims at the j-th most likely wrong class at x
    (from 1; fewer classes, fewer ranks); rank 0 at none."""
    ranks = range(1, min(search.num_targets, num_classes - 1) + 1) if search.num_targets else [0]
    return [(rank, restart) for rank in ranks for restart in range(search.num_restarts)]


def targets(clean_logits: Array, y: Array) -> Array:
    """Classes by rank, [B, K]: y first, then the others from the most likely down. Ties go to the lower class."""
    clean_logits = vote(clean_logits)
    others = jnp.where(jax.nn.one_hot(y, clean_logits.shape[-1], dtype=bool), jnp.inf, clean_logits)
    return jnp.argsort(-others, axis=-1, stable=True).astype(jnp.int32)


def vote(logits: Array) -> Array:
    """Logits [B, K] of one answer: of several draws of a randomised model, [B, S, K] (`attacks.eot`), the log of the
    mean softmax; others as they are."""
    if logits.ndim == 2:
        return logits
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])


def run_key(key: Key, rank: Array, restart: Array) -> Key:
    """The keys [B] of one run of a search whose keys are `key` [B]."""
    fold = jax.vmap(jax.random.fold_in)
    return fold(fold(key, rank), restart)


def as_attack(search: Search, *, judge: Objective = margin) -> Attack:
    """Every run of `search` to its last step; per example, the best member by `judge`, x itself included."""

    def attack(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        keys, y, logits = example_keys(key, x.shape[0]), target, logits_fn(x)
        classes = targets(logits, y)
        order = jnp.asarray(runs(search, logits.shape[-1]), jnp.int32)

        def run(index: Array, best: Best) -> Best:
            rank, restart = (jnp.broadcast_to(number, y.shape) for number in order[index])
            aim = jnp.take_along_axis(classes, rank[:, None], axis=-1)[:, 0]
            item = Item(x, y, aim, restart, run_key(keys, rank, restart))

            def step(t: Array, carry: tuple[PyTree, Best]) -> tuple[PyTree, Best]:
                memory, tried = search.step(logits_fn, item, jnp.broadcast_to(t, y.shape), carry[0])
                value = jnp.where(tried.inside, judge(tried.logits, y), -math.inf)
                return memory, better(carry[1], Best(tried.x, value))

            return jax.lax.fori_loop(0, search.num_steps, step, (search.begin(item), best))[1]

        return jax.lax.fori_loop(0, len(order), run, Best(x, judge(logits, y))).x

    return attack
