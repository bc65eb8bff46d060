"""Which run of which example is next: the bookkeeping of one attack of a cascade, in NumPy, apart from any device.

Every example gets its runs (targets x restarts) in order until one succeeds. What is recorded of a broken example is
its *first* successful run in that order, whatever finished first on the clock: so a run is only dropped once an earlier
one has succeeded, and the record depends on neither the number of slots nor where a process was killed.
"""

from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    """One run of one example: `row` in the batch, `number` in the order of its runs."""

    row: int
    number: int


class Queue:
    """Runs yet to be made for a batch of rows: the first run of all rows, then the second of all, ...

    `winner` [N] is each row's first successful run so far, num_runs where there is none; `steps` [N, num_runs] the
    evaluations of finished runs.
    """

    def __init__(self, num_rows: int, num_runs: int):
        self.num_runs = num_runs
        self.winner = np.full(num_rows, num_runs)
        self.steps = np.zeros((num_rows, num_runs), np.int64)
        self._started = np.zeros((num_rows, num_runs), bool)
        self._next = 0

    def take(self) -> Run | None:
        """The next run that is still needed; None where all have been taken."""
        while self._next < self._started.size:
            number, row = divmod(self._next, len(self.winner))
            run = Run(row, number)
            self._next += 1
            if not self._started[run] and self.needed(run):
                self._started[run] = True
                return run
        return None

    def needed(self, run: Run) -> bool:
        """Whether the outcome of `run` can still change the record."""
        return run.number < self.winner[run.row]

    def finish(self, run: Run, steps: int, success: bool) -> None:
        """Enters the outcome of a run, after `steps` evaluations: of one taken, or of one that a journal remembers."""
        self._started[run] = True
        self.steps[run] = steps
        if success:
            self.winner[run.row] = min(self.winner[run.row], run.number)

    def broken(self) -> np.ndarray:
        """Rows with a successful run, [N] bool."""
        return self.winner < self.num_runs

    def decided(self) -> int:
        """How many of the N * num_runs runs are finished, or needless since an earlier one succeeded."""
        needless = np.arange(self.num_runs) > self.winner[:, None]
        return int(np.sum((self.steps > 0) | needless))

    def counted_steps(self) -> np.ndarray:
        """Evaluations of each row up to its first success, [N]: what runs one after the other would need."""
        return np.sum(self.steps * (np.arange(self.num_runs) <= self.winner[:, None]), axis=1)

    def last_steps(self) -> np.ndarray:
        """Evaluations within the first successful run, [N]; 0 where there is none."""
        padded = np.pad(self.steps, ((0, 0), (0, 1)))
        return padded[np.arange(len(self.winner)), self.winner]
