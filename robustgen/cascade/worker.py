"""Keeps the slots of one compiled search full while there are runs in its queue."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from robustgen.attacks.search import Search
from robustgen.cascade.lanes import Examples, Lanes, Order, Slots
from robustgen.cascade.queue import Queue, Run
from robustgen.core import LogitsFn


class Decided(NamedTuple):
    """A finished run, its evaluations, and the member of the set that broke the example (None: none was found)."""

    run: Run
    steps: int
    x_adv: np.ndarray | None


class Models(NamedTuple):
    """net: what is attacked, and confirms every find. screen: what searches see; the net itself, or a cheaper one."""

    net: LogitsFn
    screen: LogitsFn


class Worker:
    """Runs a queue dry. `spent` counts the steps that slots have made for a run, needless ones included."""

    def __init__(
        self, search: Search, lanes: Lanes, models: Models, examples: Examples, order: np.ndarray, queue: Queue
    ):
        """`order` [R, 2] holds each run's (rank, restart); `examples` are on the devices, in the rows of the queue."""
        self._search, self._lanes, self._models, self._examples = search, lanes, models, examples
        self._order, self._queue, self.spent = order, queue, 0
        self._runs: list[Run | None] = [None] * lanes.num_slots
        self._y = np.asarray(examples.y)

    def decisions(self) -> Iterator[list[Decided]]:
        """Yields what each look at the slots has found finished, until the queue is empty and all slots are idle."""
        slots, before = self._lanes.empty(self._examples), np.zeros(self._lanes.num_slots, np.int64)
        unconfirmed = np.zeros(self._lanes.num_slots, bool)
        while True:
            slots, filled = self._refill(slots)
            before[filled] = 0
            if not any(self._runs):
                return
            slots = self._lanes.advance(self._models.screen, slots, unconfirmed)
            t, broken = np.array(slots.t), np.array(slots.broken)
            busy = np.array([run is not None for run in self._runs])
            self.spent += int(np.sum((t - before)[busy]))
            before = t.astype(np.int64)
            confirmed = self._confirm(slots, broken & busy)
            unconfirmed = broken & busy & ~confirmed
            yield self._free(slots, t, confirmed, busy)

    def _refill(self, slots: Slots) -> tuple[Slots, np.ndarray]:
        """Gives every idle slot the next run; those whose run is no longer needed are idle. Says which it filled."""
        filled, taken = [], []
        for slot, run in enumerate(self._runs):
            if run is not None and self._queue.needed(run):
                continue
            self._runs[slot] = run = self._queue.take()
            if run is not None:
                filled.append(slot)
                taken.append(run)
        filled = np.array(filled, np.int32)
        if taken:
            row, number = np.array(taken, np.int32).T
            slots = self._lanes.fill(slots, self._examples, Order(filled, row, *self._order[number].T))
        return slots, filled

    def _confirm(self, slots: Slots, found: np.ndarray) -> np.ndarray:
        """Which of the finds a plain forward pass, compiled on its own, calls misclassified too: [S] bool."""
        if not found.any():
            return found
        logits = np.asarray(self._lanes.forward(self._models.net, slots.x_adv))
        labels = self._y[[run.row if run else 0 for run in self._runs]]
        return found & ((logits.argmax(-1) != labels) | ~np.isfinite(logits).all(-1))

    def _free(self, slots: Slots, t: np.ndarray, confirmed: np.ndarray, busy: np.ndarray) -> list[Decided]:
        done = busy & (confirmed | (t >= self._search.num_steps))
        x_adv = jax.device_get(slots.x_adv) if np.any(done & confirmed) else None
        found = []
        for slot in np.flatnonzero(done):
            run, success = self._runs[slot], bool(confirmed[slot])
            self._runs[slot] = None
            self._queue.finish(run, int(t[slot]), success)
            found.append(Decided(run, int(t[slot]), np.array(x_adv[slot]) if success else None))
        return found
