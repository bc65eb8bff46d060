"""Being told to stop: SIGTERM from a scheduler, or Ctrl-C, ends a run after its work is saved.

    with deferred_signals():
        while step < total:
            state = chunk(state)
            if requested():             # or check(), which raises Preempted
                save(state)
                raise Preempted()
        save(state)
        with interruptible():
            evaluate(state)

What a SIGTERM does in each phase. In all of them what is on the disk stays whole, as saves appear by one rename.

    import, before the handler      the process ends at once (status -15); the last checkpoint is all there is to keep
    set-up                          inside `interruptible()`: ends at the next Python instruction; nothing to save yet
    compilation                     noted; the first chunk is run, saved, and the run ends
    training                        noted; the chunk is finished and saved, and the run ends
    save                            noted; the save is finished, and the run ends
    evaluation, report              inside `interruptible()`: ends at the next Python instruction; training was saved

A signal that comes while XLA compiles or computes is noted as soon as that returns. A second SIGTERM changes nothing; a
second Ctrl-C stops at once, leaving the last whole checkpoint. A preempted run ends with status 75 (EX_TEMPFAIL: start
me again, and I will resume), one stopped by Ctrl-C with 130. This module imports nothing slow, so that
`deferred_signals` can be entered before JAX is imported.
"""

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np

from robustgen import log

REQUEUE, INTERRUPTED = 75, 130


class Preempted(SystemExit):
    """Ends the process quietly, with status 75 after SIGTERM and 130 after Ctrl-C."""

    def __init__(self):
        super().__init__(INTERRUPTED if _seen == signal.SIGINT else REQUEUE)


_seen: int | None = None
_at_once = False


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Notes SIGTERM and the first SIGINT instead of dying of them; the handlers of before come back at the end.

    If it ends by Preempted, a further SIGTERM ends the process with the status it was ending with anyway, as there is
    nothing left to save. Does nothing outside the main thread, where Python lets no handler be set.
    """
    global _seen
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Preempted as ending:
        before[signal.SIGTERM] = functools.partial(_leave, ending.code)
        atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # Python ends by resetting handlers to "die"
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _seen = None


@contextlib.contextmanager
def interruptible(save: Callable[[], None] | None = None) -> Iterator[None]:
    """For phases that do not ask (set-up, evaluation, report): a signal, new or noted, ends them by Preempted at once.

    Before that `save` is called, if given, with further signals noted only. What is written inside should be written
    to a temporary file and renamed, as it may be left at any instruction.
    """
    global _at_once
    try:
        check()
        _at_once = True
        yield
        _at_once = False
        check()  # a handler that runs inside a destructor has its exception swallowed by Python
    except Preempted:
        _at_once = False
        if save is not None:
            save()
        raise
    finally:
        _at_once = False


def requested() -> bool:
    """Whether the run has been told to stop. On several processes: any of them, so all must ask at the same points.

    From then on `check` raises on all of them.
    """
    global _seen
    jax = sys.modules.get("jax")
    if jax is None or jax.process_count() == 1:
        return _seen is not None
    from jax.experimental import multihost_utils

    if multihost_utils.process_allgather(np.bool_(_seen is not None)).any() and _seen is None:
        _seen = signal.SIGTERM
    return _seen is not None


def check() -> None:
    """Raises Preempted if the run has been told to stop."""
    if _seen is not None:
        raise Preempted()


def _note(number: int, frame: object) -> None:
    global _seen
    if _seen is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    if _seen is None:
        _seen = number
        log.interject(f"{signal.Signals(number).name}: stopping at the next safe point")
    if _at_once:
        raise Preempted()


def _leave(status: int, number: int, frame: object) -> None:
    os._exit(status)
