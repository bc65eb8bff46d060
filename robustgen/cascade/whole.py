"""A cascade over a data set: who stands, and for each who fell, by what, when, where and at what price.

    found = evaluate(autoattack.standard(norms.linf, eps=8 / 255), net, x, y, seed=0)
    found.columns["robust:AutoAttack"].mean()
"""

import hashlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.search import Cascade, Search, runs, targets
from robustgen.cascade.journal import Journal, open_journal
from robustgen.cascade.lanes import mesh_of
from robustgen.cascade.run import Data, Machine, Progress, Stage, logits_of, run_search
from robustgen.cascade.worker import Models
from robustgen.core import VERIFIED, Certifier, LogitsFn, Net
from robustgen.evaluation.columns import OUTSIDE_TOLERANCE, Columns, OutsideError, distances, evaluator, judge
from robustgen.knobs import Count, CountOrZero, KnobError, checked

CERTIFIED, WRONG, STANDING = -3, -2, -1
"""Who broke an example, in place of a search's number: verified before any attack, wrong at x itself, nobody."""


After = Callable[[Search, Stage, int], None]


class Evaluation(NamedTuple):
    """columns: one row an example (see `evaluate`). x_adv [N, ...]: where it fell, x itself elsewhere. stages: what
    each search did. spent: (forwards, backwards) really made."""

    columns: Columns
    x_adv: np.ndarray
    stages: list[Stage]
    spent: tuple[int, int]


@checked
def evaluate(
    cascade: Cascade,
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: CountOrZero,
    index: np.ndarray | None = None,
    certifier: Certifier | None = None,
    screen: LogitsFn | None = None,
    width: Count | None = None,
    batch_size: Count | None = None,
    stride: Count | None = None,
    devices: list | None = None,
    journal: pathlib.Path | None = None,
    progress: Progress = lambda name, done, total, standing: None,
    after: After = lambda search, stage, robust: None,
) -> Evaluation:
    """Runs `cascade` on x [N, ...] float32, y [N] int: each search on the examples still standing, each run to its
    first success. `net` is a `Net` or any function x -> logits.

    Columns [N], with NAME the cascade's: index, label, prediction, confidence, margin, clean; robust:NAME;
    broken_by:NAME (number of the search; CERTIFIED, WRONG or STANDING); target:NAME (class aimed at, -1 none),
    restart:NAME, iteration:NAME (the evaluation, from 1, that found it), prediction:NAME, confidence:NAME, margin:NAME
    at x_adv, distance_linf:NAME, distance_l2:NAME in float64; forwards:NAME, backwards:NAME that runs one after the
    other would have made.

    Args:
      index: each example's number in its data set, [N]; with `seed`, what random numbers are folded from. Default
        0..N-1.
      certifier: asked first; examples that it verifies are not attacked, the answer being known.
      screen: a cheaper stand-in that the searches see (the same parameters in bfloat16, say). Every find is confirmed
        by `net`, so what falls has fallen; what stands has only withstood the stand-in's gradients.
      width: slots on each device; default 32 on a CPU, 256 elsewhere. Multiples of 32 only: then outcomes on a CPU do
        not depend on the place in a batch. Another width may round differently, so compare like with like.
      batch_size: examples on the devices at a time; no outcome depends on it. Default: all.
      stride: steps between two looks of the host, compiled as a loop. Default 10; on a CPU 50 for searches that take no
        gradients, and 1 for those that do, as XLA runs gradients of most convolutions slowly inside loops there.
      journal: a file; the same call with it resumes, and `kill -9` loses no more than the runs in the slots.
      after: after(search, stage, robust) is called when a search is through, `robust` counting the examples still held
        right, verified ones included; as the last number that `progress` gets does.

    Raises `KnobError`, `JournalError` (the journal is of another evaluation), `OutsideError` (an x_adv is outside the
    threat set, in float64).
    """
    machine = _machine(len(y), width, batch_size, stride, devices)
    x, y = np.asarray(x, np.float32), np.asarray(y, np.int32)
    index = np.arange(len(y)) if index is None else np.asarray(index)
    net = _as_pytree(net)
    models = Models(net, net if screen is None else _as_pytree(screen))
    logits = logits_of(machine, net, x)
    data = Data(x, y, np.asarray(targets(jnp.asarray(logits), jnp.asarray(y))), index)
    clean = (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)
    certified = clean & _verified(certifier, machine, net, data, seed)
    seen = [logits] if screen is None else [logits, logits_of(machine, models.screen, x)]
    notes = open_journal(journal, _identity(cascade, data, seen, certified, seed, machine), x.shape[1:])
    try:
        held = int(certified.sum())
        stages, x_adv = _run_all(
            cascade, machine, models, data, clean & ~certified, seed, notes,
            lambda name, done, total, standing: progress(name, done, total, standing + held),
            lambda search, stage, standing: after(search, stage, standing + held),
        )  # fmt: skip
    finally:
        notes.close()
    _refuse_outside(cascade, x, x_adv, index)
    at_x = {"index": index, "label": y, **_judged(logits, y), "clean": clean}
    at_x_adv = {**_judged(logits_of(machine, net, x_adv), y), **distances(x, x_adv)}
    attacked = {**_record(cascade, data, stages, clean, certified), **at_x_adv}
    columns = at_x | {f"{name}:{cascade.name}": column for name, column in attacked.items()}
    return Evaluation(columns, x_adv, stages, _spent(cascade, stages))


def _spent(cascade: Cascade, stages: list[Stage]) -> tuple[int, int]:
    """(forwards, backwards) of all stages."""
    prices = zip(*map(_cost, cascade.searches), strict=True)
    return tuple(sum(s.spent * cost for s, cost in zip(stages, costs, strict=True)) for costs in prices)


def _machine(num: int, width: int | None, batch_size: int | None, stride: int | None, devices: list | None) -> Machine:
    if num == 0:
        raise KnobError("x", "must hold at least one example")
    devices = jax.devices() if devices is None else devices
    width = width or (32 if devices[0].platform == "cpu" else 256)
    if width % 32:
        raise KnobError("width", f"must be a multiple of 32; got {width}")
    return Machine(mesh_of(devices), width, stride, min(batch_size or num, num))


def _as_pytree(net: LogitsFn) -> LogitsFn:
    return net if isinstance(net, Net) else jax.tree_util.Partial(net)  # a bare function is none


def _run_all(
    cascade: Cascade, machine: Machine, models: Models, data: Data, standing: np.ndarray, seed: int, journal: Journal,
    progress: Progress, after: After,
) -> tuple[list[Stage], np.ndarray]:
    stages, x_adv = [], data.x.copy()
    for number, search in enumerate(cascade.searches):
        stage = run_search(
            search, number, machine, models, data, standing, x_adv, seed=seed, journal=journal, progress=progress
        )
        standing = standing & ~stage.broken
        stages.append(stage)
        after(search, stage, int(standing.sum()))
    return stages, x_adv


def _verified(certifier: Certifier | None, machine: Machine, net: LogitsFn, data: Data, seed: int) -> np.ndarray:
    if certifier is None:
        return np.zeros(len(data.y), bool)
    key, size, found = jax.random.key(seed), machine.width, []
    run = jax.jit(lambda net, x, y, keys: certifier(net, x, y, keys).status == VERIFIED)
    for start in range(0, len(data.y), size):
        rows = np.minimum(np.arange(start, start + size), len(data.y) - 1)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, data.index[rows])
        found.append(np.asarray(run(net, data.x[rows], data.y[rows], keys))[: len(data.y) - start])
    return np.concatenate(found)


def _identity(
    cascade: Cascade, data: Data, logits: list[np.ndarray], certified: np.ndarray, seed: int, machine: Machine
) -> dict:
    """What must be equal for a journal to be taken up. The clean logits stand for the net and its weights."""
    searches = [[s.name, {k: str(v) for k, v in s.settings.items()}] for s in cascade.searches]
    arrays = {"examples": [data.x, data.y, data.index], "net": logits, "certified": [certified]}
    digests = {k: hashlib.sha256(b"".join(map(np.ndarray.tobytes, v))).hexdigest() for k, v in arrays.items()}
    return {
        "cascade": cascade.name, "searches": searches, "seed": seed, **digests, "width": machine.width,
        "jax": jax.__version__, "platform": machine.mesh.devices.flat[0].platform,
    }  # fmt: skip


def _record(cascade: Cascade, data: Data, stages: list[Stage], clean: np.ndarray, certified: np.ndarray) -> Columns:
    fresh = {name: np.full(len(data.y), -1) for name in ("target", "restart", "iteration")}
    counts = {name: np.zeros(len(data.y), np.int64) for name in ("forwards", "backwards")}
    broken_by = np.where(certified, CERTIFIED, np.where(clean, STANDING, WRONG))
    for number, (search, stage) in enumerate(zip(cascade.searches, stages, strict=True)):
        rank, restart = np.asarray(runs(search, data.classes.shape[1]))[stage.run].T
        aimed = np.take_along_axis(data.classes, rank[:, None], axis=1)[:, 0]
        found = {"target": np.where(rank > 0, aimed, -1), "restart": restart, "iteration": stage.last_steps}
        fresh = {name: np.where(stage.broken, found[name], column) for name, column in fresh.items()}
        broken_by = np.where(stage.broken, number, broken_by)
        counts["forwards"] += stage.steps * search.forwards
        counts["backwards"] += stage.steps * search.backwards
    return {"robust": (broken_by == STANDING) | certified, "broken_by": broken_by, **fresh, **counts}


def _judged(logits: np.ndarray, y: np.ndarray) -> Columns:
    """What `columns.judge` says of logits that are at hand."""
    return jax.device_get(judge(lambda _: jnp.asarray(logits), jnp.zeros(()), jnp.asarray(y)))


def _refuse_outside(cascade: Cascade, x: np.ndarray, x_adv: np.ndarray, index: np.ndarray) -> None:
    excess = evaluator(attacks={}, certifiers={}, threat=cascade.threat).excess(x, x_adv)
    outside = ~(excess <= OUTSIDE_TOLERANCE)
    if outside.any():
        rows = ", ".join(map(str, index[outside][:10]))
        raise OutsideError(f"{cascade.name} left the threat set on {outside.sum()} examples: index {rows}")


def _cost(search: Search) -> tuple[int, int]:
    return search.forwards, search.backwards
