"""Population training: seeds x hyper-parameters as one `vmap` in one compile.

A member is a run of its own: its seed decides initialisation, data order and attacks, its values (beta, eps, learning
rate, ...) reach the loss and the optimizer as tracers. Small models that leave a device idle train together in little
more than the time of one; several devices share the members (`parallel.members`).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, Net, Stream, TrainState
from robustgen.spread import local_members, num_member_shards
from robustgen.train import Learner, chunk, init

LearnerAt = Callable[[Mapping[str, Array]], Learner]
"""A learner for given values of the knobs that differ between members: `{"loss.beta": tracer, ...}`."""

_MEMBERS = TrainState(step=None, params=0, state=0, opt_state=0, ema=0, key=0)  # the step is common: one schedule


class Population(NamedTuple):
    """Who trains: seed [P] int32, and each varied knob's values [P] float32."""

    seeds: np.ndarray
    values: dict[str, np.ndarray]

    def describe(self, member: int) -> dict[str, float]:
        """The values of one member, as plain numbers."""
        return {knob: float(values[member]) for knob, values in self.values.items()}


def grid(seeds: Sequence[int], values: Mapping[str, Sequence[float]]) -> Population:
    """Every seed with every combination of values, the seed varying fastest."""
    rows = list(itertools.product(*values.values(), seeds))
    columns = list(zip(*rows, strict=True))
    named = {knob: np.asarray(column, np.float32) for knob, column in zip(values, columns, strict=False)}
    return Population(np.asarray(columns[-1], np.int32), named)


def init_population(learner_at: LearnerAt, init_net: Callable[[Key], Net], population: Population) -> TrainState:
    """The members' states before the first step, stacked along a leading axis; the step is shared."""

    def member(seed_and_values: tuple[Array, dict[str, Array]]) -> TrainState:
        seed, values = seed_and_values
        key = jax.random.key(seed)
        return init(learner_at(values), init_net(key), key)

    everyone = jnp.asarray(population.seeds), population.values
    states = jax.jit(lambda members: jax.lax.map(member, members))(everyone)  # a map compiles twice as fast as a vmap
    return states._replace(step=states.step[0])


def population_chunk(
    learner_at: LearnerAt, stream: Stream, state: TrainState, values: Mapping[str, Array], *, length: int
) -> tuple[TrainState, dict[str, Array]]:
    """`train.chunk` for every member; metrics are [P, length]. Where `parallel.members` runs it, `state` holds this
    device's members and `values` those of all.

    All members at once, but one after the other on CPU devices that share them: each is a core, which one member keeps
    busy and in whose cache it fits, and XLA's CPU has no fast kernel for a `vmap` of convolutions.
    """

    def member(state: TrainState, values: Mapping[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        return chunk(learner_at(values), stream, state, length=length)

    in_turn = num_member_shards() > 1 and jax.default_backend() == "cpu"
    everyone = _in_turn(member) if in_turn else jax.vmap(member, in_axes=(_MEMBERS, 0), out_axes=(_MEMBERS, 0))
    return everyone(state, local_members(values))


def _in_turn(member: Callable) -> Callable:
    """The `vmap` of `member` as a loop."""

    def everyone(state: TrainState, values: Mapping[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        def one(own: tuple[TrainState, Mapping[str, Array]]) -> tuple[TrainState, dict[str, Array]]:
            return member(own[0]._replace(step=state.step), own[1])

        after, metrics = jax.lax.map(one, (state._replace(step=None), values))
        return after._replace(step=after.step[0]), metrics

    return everyone


def diverged(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Members [P] with a loss or gradient that was not finite: they kept their last good parameters."""
    return ~np.all(np.isfinite(metrics["loss"]) & np.isfinite(metrics["grad_norm"]), axis=-1)


def member_state(state: TrainState, member: int) -> TrainState:
    """One member's state, as `train.fit` would have left it."""
    return jax.tree.map(lambda leaf: leaf[member], state._replace(step=jnp.broadcast_to(state.step, len(state.key))))
