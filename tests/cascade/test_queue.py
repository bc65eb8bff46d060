"""The queue against a plain simulation: what is recorded never depends on who finishes first."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robustgen.cascade.queue import Queue, Run


def outcome_of(success: np.ndarray, slots: int, finish_order: np.random.Generator) -> Queue:
    """Runs a queue dry with `slots` workers that finish in random order; steps of a run are 1 + its number."""
    queue, busy = Queue(*success.shape), []
    while True:
        busy = [run for run in busy if queue.needed(run)]
        while len(busy) < slots and (run := queue.take()) is not None:
            busy.append(run)
        if not busy:
            return queue
        run = busy.pop(finish_order.integers(len(busy)))
        queue.finish(run, 1 + run.number, bool(success[run]))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_record_is_that_of_runs_one_after_the_other(rows, runs, slots, seed):
    random = np.random.default_rng(seed)
    success = random.random((rows, runs)) < 0.3
    queue = outcome_of(success, slots, random)
    first = [next((r for r in range(runs) if row[r]), runs) for row in success]
    np.testing.assert_array_equal(queue.winner, first)
    np.testing.assert_array_equal(queue.broken(), np.array(first) < runs)
    np.testing.assert_array_equal(queue.counted_steps(), [sum(1 + r for r in range(min(f + 1, runs))) for f in first])
    np.testing.assert_array_equal(queue.last_steps(), [1 + f if f < runs else 0 for f in first])
    assert queue.decided() == rows * runs


def test_remembered_runs_are_not_taken_again():
    queue = Queue(2, 2)
    queue.finish(Run(0, 0), 7, success=True)
    queue.finish(Run(1, 0), 5, success=False)
    assert queue.take() == Run(1, 1) and queue.take() is None
    assert queue.decided() == 3


def test_an_earlier_run_in_flight_stays_needed_when_a_later_one_succeeds():
    queue = Queue(1, 3)
    first, second, third = queue.take(), queue.take(), queue.take()
    queue.finish(second, 4, success=True)
    assert queue.needed(first) and not queue.needed(third)
    queue.finish(first, 9, success=True)
    assert queue.winner[0] == 0 and queue.counted_steps()[0] == 9
