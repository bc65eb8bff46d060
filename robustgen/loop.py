"""The host's side of training: resume, advance, validate, log, save, until the last step."""

import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from robustgen import checkpoint, log, parallel, preemption, train
from robustgen.core import Array, TrainState

SAVE_SECONDS = 30.0
"""At most this much work is lost to `kill -9`; SIGTERM loses none. When a run saves changes none of its numbers."""

_SHOWN = ("loss", "clean_accuracy", "adv_accuracy", "certified_accuracy", "validation_clean", "validation_robust")


def run(
    advance: Callable[[TrainState, int], tuple[TrainState, dict[str, Array]]],
    state: TrainState,
    *,
    folder: pathlib.Path,
    num_steps: int,
    span: int,
    validate: Callable[[TrainState], dict[str, np.ndarray]],
    validate_every: int,
    guard: Callable[[int, dict[str, np.ndarray]], None],
    save_seconds: float = SAVE_SECONDS,
) -> TrainState:
    """Trains from FOLDER/checkpoints, or from `state`, to `num_steps` as `train.fit` does. Returns the last state.

    Writes FOLDER/metrics.jsonl, a row every `span` steps, with `validate`'s numbers where `validate_every` steps have
    passed. On several processes all call it, and the first writes. Raises `Preempted` after saving, when told to stop.
    """
    metrics = log.MetricsLog(folder / "metrics.jsonl") if jax.process_index() == 0 else log.Nowhere()
    state = _resume(folder, metrics, state)
    done = int(np.max(state.step))
    progress = log.Progress(num_steps, start=done, label="train")
    saved = time.monotonic()
    for passed in train.fit(advance, state, num_steps=num_steps, span=span, guard=guard):
        state, row, last = passed.state, passed.metrics, passed.step == num_steps
        if last or passed.step // validate_every > done // validate_every:
            row = {**row, **validate(state)}
        done = passed.step
        metrics.write(done, row)
        progress.update(done, {name: row[name] for name in _SHOWN if name in row})
        stopping = preemption.requested()
        if last or stopping or parallel.any_process(time.monotonic() - saved > save_seconds):
            metrics.flush()
            checkpoint.save(folder / "checkpoints", done, state)
            saved = time.monotonic()
        if stopping:  # a signal that came since `requested` waits for the next span: nothing is saved for it yet
            preemption.check()
    progress.close()
    return state


def _resume(folder: pathlib.Path, metrics: log.Writer, state: TrainState) -> TrainState:
    found = checkpoint.restore(folder / "checkpoints", state)
    metrics.truncate_after(-1 if found is None else found.step)
    if found is None:
        return state
    log.note(f"resume step {found.step} of {folder}")
    return found.state
