"""Idle slots help a random search: they try the proposals that the busy ones would come to next.

A random search leaves its memory as it was where a proposal is refused, which most are. So the steps after it are known
at once, and slots without a run make them, as a team with a slot that has one. The first step that changes the memory,
or that finds something, counts; those after it are thrown away. Outcomes are those of one step after the other, number
for number, and the last runs of a search, which leave most slots idle, take a fraction of the time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.core import Array, PyTree


class Teams(NamedTuple):
    """Of each slot, [S]: the slot `leader` whose run it works on, and how many steps `ahead` of it (leaders: 0).

    `place` numbers the `size` leaders, and slot order[k * size + p] is k ahead of the leader at place p.
    """

    leader: Array
    ahead: Array
    place: Array
    size: Array
    order: Array


class Outcome(NamedTuple):
    """What slots have come to, [S, ...]: their memory, the point they tried, whether it is a find, after how many
    steps."""

    memory: PyTree
    x: Array
    found: Array
    steps: Array


def formed(busy: Array) -> Teams:
    """Teams of about the same size around the slots that are `busy` [S]."""
    order = jnp.argsort(~busy, stable=True)
    size = jnp.maximum(jnp.sum(busy), 1)
    number = jnp.argsort(order)
    place = number % size
    return Teams(order[place], number // size, place, size, order)


def gathered(teams: Teams, tree: PyTree) -> PyTree:
    """What its leader has, for each slot."""
    return jax.tree.map(lambda leaf: leaf[teams.leader], tree)


def agreed(teams: Teams, before: PyTree, outcome: Outcome, steps_left: Array) -> Outcome:
    """The outcome of the first step of each team that changed the memory `before` or is a find, else of its last; for
    all of the team. `steps_left` [S] of each run bound its number."""
    num_slots = len(teams.leader)

    def agree(carry: tuple[Array, Outcome]) -> tuple[Array, Outcome]:
        one = carry[1]
        decisive = one.found | _differs(one.memory, before)
        first = jnp.full(num_slots, num_slots).at[teams.leader].min(jnp.where(decisive, teams.ahead, num_slots))
        last = jnp.minimum((num_slots - 1 - teams.place) // teams.size, steps_left - 1)
        steps = jnp.clip(first, 0, last)[teams.leader]
        row = teams.order[steps * teams.size + teams.place]
        memory, x, found = jax.tree.map(lambda leaf: leaf[row], (one.memory, one.x, one.found))
        return jnp.array(False), Outcome(memory, x, found, steps + 1)

    # A loop that is run once or not at all: unlike `lax.cond` it copies nothing where nobody helps.
    helped = teams.size < num_slots
    return jax.lax.while_loop(lambda carry: carry[0], agree, (helped, outcome))[1]


def _differs(a: PyTree, b: PyTree) -> Array:
    """Rows [S] where any leaf does. NaN differs from itself, which only ends a team's step early."""
    rows = [jnp.any((v != w).reshape(len(v), -1), axis=1) for v, w in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
    return functools.reduce(jnp.logical_or, rows)
