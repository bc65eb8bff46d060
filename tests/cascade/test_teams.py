"""Slots that help others: the same outcomes as steps one after the other, in fewer rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.attacks.search import Cascade
from robustgen.attacks.square import square_linf
from robustgen.attacks.square_l2 import square_l2
from robustgen.cascade import evaluate
from robustgen.cascade.teams import Outcome, agreed, formed, gathered

KNOBS = {"clip": (0.0, 1.0), "p_init": 0.8, "num_queries": 70, "num_restarts": 1}
ROUNDS = []


def net(x):
    """4 classes of images of 5 x 5; notes each evaluation."""
    jax.debug.callback(lambda: ROUNDS.append(1))
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((25, 4)), jnp.float32)
    return jnp.sin(3 * x.reshape(len(x), -1) @ weights)


def data(num):
    """Images that stand for some time, and their labels."""
    x = np.random.default_rng(0).random((200, 5, 5), np.float32)
    logits = np.sort(np.asarray(net(x)), axis=-1)
    x = x[np.argsort(logits[:, -2] - logits[:, -1])[:num]]
    return x, np.asarray(net(x)).argmax(-1).astype(np.int32)


def attacked(search, threat, num):
    """The evaluation, and in how many rounds."""
    x, y = data(num)
    jax.effects_barrier()
    ROUNDS.clear()
    knobs = {"seed": 0, "width": 32, "stride": 1, "devices": jax.devices()[:1]}
    found = evaluate(Cascade("AA", threat, (search,)), net, x, y, **knobs)
    jax.effects_barrier()
    return found, len(ROUNDS)


@pytest.mark.parametrize("num", [3, 41])
@pytest.mark.parametrize(
    "search, threat",
    [(square_linf(eps=0.04, **KNOBS), threats.linf(0.04)), (square_l2(eps=0.2, **KNOBS), threats.l2(0.2))],
)
def test_help_does_not_show_but_in_time(search, threat, num):
    helped, rounds = attacked(search, threat, num)
    alone, rounds_alone = attacked(search._replace(backwards=1), threat, num)  # as if it took gradients
    for name in helped.columns.keys() - {"backwards:AA"}:
        np.testing.assert_array_equal(helped.columns[name], alone.columns[name], err_msg=name)
    np.testing.assert_array_equal(helped.x_adv, alone.x_adv)
    assert helped.spent[0] == alone.spent[0]
    assert 0 < helped.columns["robust:AA"].sum() < num or num == 3
    assert rounds < (0.6 if num == 3 else 0.95) * rounds_alone


def test_teams_divide_the_idle_slots():
    busy = jnp.array([False, True, False, False, True, False, False])
    teams = formed(busy)
    np.testing.assert_array_equal(np.asarray(teams.leader)[np.asarray(busy)], [1, 4])
    np.testing.assert_array_equal(np.asarray(teams.ahead)[np.asarray(busy)], [0, 0])
    pairs = sorted(zip(teams.leader.tolist(), teams.ahead.tolist(), strict=True))
    assert pairs == [(1, 0), (1, 1), (1, 2), (1, 3), (4, 0), (4, 1), (4, 2)]
    rows = np.asarray(teams.order)[np.asarray(teams.ahead * teams.size + teams.place)]
    np.testing.assert_array_equal(rows, np.arange(7))


def test_the_first_step_that_matters_counts():
    """Slots 1 and 4 lead; memory changes 2 steps ahead of slot 1, and nowhere in the team of slot 4, whose run has 2
    steps left; a find a step later than the change is thrown away."""
    teams = formed(jnp.array([False, True, False, False, True, False, False]))
    before = gathered(teams, jnp.array([0.0, 10.0, 0.0, 0.0, 20.0, 0.0, 0.0]))
    first = np.asarray(teams.leader) == 1
    ahead = np.asarray(teams.ahead)
    memory = before + jnp.where(first & (ahead >= 2), 0.5 + ahead, 0.0)
    outcome = Outcome(memory, jnp.asarray(ahead), jnp.asarray(first & (ahead == 3)), jnp.ones(7, jnp.int32))
    steps_left = jnp.full(7, 9).at[4].set(2)
    memory, x, found, steps = map(np.asarray, agreed(teams, before, outcome, steps_left))
    np.testing.assert_array_equal(memory[first], 12.5)
    np.testing.assert_array_equal(memory[~first], 20.0)
    assert (x[1], steps[1], found[1]) == (2, 3, False) and (x[4], steps[4], found[4]) == (1, 2, False)
