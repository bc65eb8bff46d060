"""Counting votes over a data set: spread over devices, stretch by stretch, resumable.

    drawn = plan(sigma=0.25, num_selection=100, num_samples=100_000)
    votes = sample(net, x, drawn, seed=0, journal=path)
    found = certify(votes, drawn, alpha=0.001)

Each device works on an example of its own, so nothing is summed over devices. Counts are a function of (net, example,
seed, plan, batch_size), and on one platform of nothing else: the devices, the stretches, a kill and a resumption do not
show in them.
"""

import functools
import hashlib
import pathlib
import struct
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robustgen.certify.smoothing.votes import Plan, Votes, count
from robustgen.core import Array, Key, LogitsFn, Net
from robustgen.knobs import Count, CountOrZero, KnobError, checked
from robustgen.records import Records, open_records
from robustgen.spread import DATA_AXIS

Progress = Callable[[int, int], None]
"""progress(samples drawn, samples there are in all)."""

_HEAD = struct.Struct("<qq")  # example, samples of it drawn


@checked
def sample(
    net: LogitsFn,
    x: np.ndarray,
    plan: Plan,
    *,
    seed: CountOrZero,
    index: np.ndarray | None = None,
    batch_size: Count | None = None,
    stretch: Count | None = None,
    devices: list | None = None,
    journal: pathlib.Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Votes:
    """Votes [N, K] int64 on x [N, ...] float32 under the noise of `plan`. `net` is a `Net` or any x -> logits.

    Args:
      index: each example's number in its data set, [N]; with `seed`, what noise is drawn from. Default 0 .. N-1.
      batch_size: rows of a forward pass; default 512 on a CPU, 1024 elsewhere. Another width draws the same noise and
        may round logits differently: a sample at the border of two classes to within float32 could change its vote.
      devices: one example each at a time; default: this process's.
      stretch: samples of an example between two looks of the host; default 10 000. Nothing depends on it.
      journal: a file; the same call with it resumes, and `kill -9` loses no more than one stretch a device.

    Raises `KnobError`, and `JournalError` where the journal is of other work.
    """
    x = np.asarray(x, np.float32)
    if len(x) == 0:
        raise KnobError("x", "must hold at least one example")
    index = np.arange(len(x)) if index is None else np.asarray(index)
    devices = jax.local_devices() if devices is None else devices
    batch_size = batch_size or (512 if devices[0].platform == "cpu" else 1024)
    mesh = jax.make_mesh((len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    net = net if isinstance(net, (Net, jax.tree_util.Partial)) else jax.tree_util.Partial(net)
    logits = _logits(net, x, batch_size, devices[0])
    net = jax.device_put(net, NamedSharding(mesh, PartitionSpec()))  # a copy on every device, once
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)
    notes = open_records(journal, _identity(plan, seed, index, x, logits, batch_size, devices[0]), kind="smoothing")
    try:
        tally = _Tally(notes, len(x), logits.shape[-1])
        step = _compiled(mesh, plan, batch_size)
        for rows, start, stop in _work(tally, len(devices), plan.total, stretch or 10_000):
            found = jax.device_get(step(net, x[rows], keys[rows], np.int32(start), np.int32(stop)))
            tally.add(rows, stop, found)
            progress(int(tally.drawn.sum()), len(x) * plan.total)
    finally:
        notes.close()
    return Votes(tally.counts[:, 0], tally.counts[:, 1])


class _Tally:
    """counts [N, 2, K] int64 and drawn [N]: what the journal held, and what is added, which goes into it."""

    def __init__(self, notes: Records, num_examples: int, num_classes: int):
        self._notes = notes
        self.counts, self.drawn = np.zeros((num_examples, 2, num_classes), np.int64), np.zeros(num_examples, np.int64)
        for record in notes.past:
            row, done = _HEAD.unpack_from(record)
            self.drawn[row] = done
            self.counts[row] = np.frombuffer(record, "<i8", offset=_HEAD.size).reshape(2, num_classes)

    def add(self, rows: np.ndarray, stop: int, found: Votes) -> None:
        """Adds a stretch, up to sample `stop`, of the examples `rows`; what is there twice to fill devices, once."""
        stretch = np.stack([found.selection, found.estimation], 1)
        for row, at in zip(*np.unique(rows, return_index=True), strict=True):
            self.counts[row] += stretch[at]
            self.drawn[row] = stop
            self._notes.add(_HEAD.pack(row, stop) + self.counts[row].astype("<i8").tobytes())
        self._notes.flush()


def _work(tally: _Tally, num_devices: int, total: int, stretch: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """(examples, one a device; first sample; end) until everything is drawn. Examples at the same sample go together;
    where there are too few of them, the last is given to several devices."""
    for begin in np.unique(tally.drawn)[::-1]:  # those interrupted first
        rows = np.flatnonzero(tally.drawn == begin)
        for first in range(0, len(rows), num_devices):
            group = rows[first : first + num_devices]
            group = np.append(group, np.repeat(group[-1], num_devices - len(group)))
            for start in range(int(begin), total, stretch):
                yield group, start, min(start + stretch, total)


@functools.lru_cache(maxsize=8)
def _compiled(mesh: Mesh, plan: Plan, batch_size: int) -> Callable[..., Votes]:
    """(net, x [D, ...], keys [D], start, stop) -> Votes [D, K], an example on each of D devices."""

    def on_device(net: LogitsFn, x: Array, keys: Key, start: Array, stop: Array) -> Votes:
        votes = count(net, x[0], keys[0], plan, start=start, stop=stop, batch_size=batch_size)
        return jax.tree.map(lambda counts: counts[None], votes)

    rows, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec()
    specs = {"in_specs": (everywhere, rows, rows, everywhere, everywhere), "out_specs": rows}
    return jax.jit(jax.shard_map(on_device, mesh=mesh, **specs, check_vma=False))


def _logits(net: LogitsFn, x: np.ndarray, batch_size: int, device: jax.Device) -> np.ndarray:
    """Logits [N, K] without noise, which stand for the net in the journal; in batches of one width."""
    run, found = jax.jit(lambda net, x: net(x)), []
    for start in range(0, len(x), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(x) - 1)
        found.append(np.asarray(run(net, jax.device_put(x[rows], device)))[: len(x) - start])
    return np.concatenate(found)


def _identity(
    plan: Plan, seed: int, index: np.ndarray, x: np.ndarray, logits: np.ndarray, batch_size: int, device: jax.Device
) -> dict:
    """What must be equal for a journal to be taken up."""

    def digest(*arrays: np.ndarray) -> str:
        return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

    return {
        **plan._asdict(), "seed": seed, "examples": digest(x, np.asarray(index, np.int64)), "net": digest(logits),
        "batch_size": batch_size, "jax": jax.__version__, "platform": device.platform,
    }  # fmt: skip
