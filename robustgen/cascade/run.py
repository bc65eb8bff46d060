"""Runs the searches of a cascade one after the other, each on the examples that are still standing.

The host keeps the queue and hands out slots; devices only ever run the same few compiled functions (`lanes`). Outcomes
are a function of (seed, example, search, target, restart): the size of batches, their order, a kill and a resumption do
not show in them.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from robustgen.attacks.search import Search, runs
from robustgen.cascade.journal import Decision, Journal
from robustgen.cascade.lanes import Examples, forward, lanes, place
from robustgen.cascade.queue import Queue, Run
from robustgen.cascade.worker import Models, Worker
from robustgen.core import LogitsFn

Progress = Callable[[str, int, int, int], None]
"""progress(attack, runs decided, runs there are at most, examples still standing)."""


class Machine(NamedTuple):
    """How it is run. width: slots on each device of `mesh`; stride: steps between two looks of the host, None for what
    suits the platform; batch_size: examples that are on the devices at a time."""

    mesh: jax.sharding.Mesh
    width: int
    stride: int | None
    batch_size: int


class Stage(NamedTuple):
    """What one search did to the examples [N], of which it was given those `standing`. `broken` [N]; `run` [N] number
    of the first successful run, -1 where none; `steps` [N] evaluations up to it, `last_steps` [N] those within it;
    `spent` the evaluations really made, those of runs that proved needless included."""

    standing: np.ndarray
    broken: np.ndarray
    run: np.ndarray
    steps: np.ndarray
    last_steps: np.ndarray
    spent: int


class Data(NamedTuple):
    """x [N, ...], y [N], classes [N, K] by rank, and index [N], what keys are folded from; on the host."""

    x: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    index: np.ndarray


def logits_of(machine: Machine, net: LogitsFn, x: np.ndarray) -> np.ndarray:
    """Logits [N, K], computed in slices as wide as the slots; the last is filled up with its last example."""
    size, found = machine.width * machine.mesh.size, []
    for start in range(0, len(x), size):
        rows = np.minimum(np.arange(start, start + size), len(x) - 1)
        found.append(np.asarray(forward(machine.mesh)(net, x[rows]))[: len(x) - start])
    return np.concatenate(found)


def run_search(
    search: Search, stage: int, machine: Machine, models: Models, data: Data, standing: np.ndarray, x_adv: np.ndarray,
    *, seed: int, journal: Journal, progress: Progress,
) -> Stage:
    """One search on the rows `standing` [N]; what it finds is written into `x_adv` [N, ...] and the journal."""
    order = np.asarray(runs(search, data.classes.shape[1]), np.int32)
    compiled = lanes(search, width=machine.width, mesh=machine.mesh, stride=_stride(search, machine))
    rows, queues, spent = np.flatnonzero(standing), [], 0
    for start in range(0, len(rows), machine.batch_size):
        batch = rows[start : start + machine.batch_size]
        queue = _recalled(batch, len(order), stage, journal, x_adv)
        queues.append(queue)
        worker = Worker(search, compiled, models, _resident(search, machine, data, batch, seed), order, queue)
        for decided in worker.decisions():
            for run, steps, found in decided:
                journal.add(Decision(stage, int(batch[run.row]), run.number, steps, found))
                if found is not None and queue.winner[run.row] == run.number:
                    x_adv[batch[run.row]] = found
            if decided:
                journal.flush()
                broken = sum(int(q.broken().sum()) for q in queues)
                progress(search.name, sum(q.decided() for q in queues), len(rows) * len(order), len(rows) - broken)
        spent += worker.spent
    return _joined(standing, rows, queues, spent)


def _stride(search: Search, machine: Machine) -> int:
    if machine.stride or machine.mesh.devices.flat[0].platform != "cpu":
        return machine.stride or 10
    return 1 if search.backwards else 50


def _recalled(batch: np.ndarray, num_runs: int, stage: int, journal: Journal, x_adv: np.ndarray) -> Queue:
    """A queue without the runs that the journal remembers."""
    queue, place = Queue(len(batch), num_runs), {int(row): i for i, row in enumerate(batch)}
    for past in journal.past:
        if past.stage == stage and past.row in place:
            run = Run(place[past.row], past.number)
            queue.finish(run, past.steps, past.x_adv is not None)
            if past.x_adv is not None and queue.winner[run.row] == run.number:
                x_adv[past.row] = past.x_adv
    return queue


def _resident(search: Search, machine: Machine, data: Data, batch: np.ndarray, seed: int) -> Examples:
    """The examples of a batch on the devices, filled up to batch_size so that every batch has one shape."""
    rows = np.resize(batch, machine.batch_size)
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(search.name.encode())))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, data.index[rows])
    return place(Examples(data.x[rows], data.y[rows], data.classes[rows], keys), machine.mesh)


def _joined(standing: np.ndarray, rows: np.ndarray, queues: list[Queue], spent: int) -> Stage:
    def spread(of: Callable[[Queue], np.ndarray], elsewhere: int) -> np.ndarray:
        column = np.full(len(standing), elsewhere)
        column[rows] = np.concatenate([of(queue) for queue in queues]) if queues else []
        return column

    run = spread(lambda queue: np.where(queue.broken(), queue.winner, -1), -1)
    steps, last = spread(Queue.counted_steps, 0), spread(Queue.last_steps, 0)
    return Stage(standing, run >= 0, run, steps, last, spent)
