"""All that robustgen prints, and the metrics file of a run.

    say(text)       results, on stdout
    note(text)      what is going on, on stderr; dropped after `hush()` (the flag --quiet)
    warn(text)      one line on stderr, never dropped
    Progress        a line that updates itself on a terminal, one line per 10 s elsewhere
    MetricsLog      append-only JSON lines; cut back on resume, so that a killed run leaves the file of a whole one
"""

import json
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

import numpy as np

_ERASE = "\r\x1b[K"
_NAMED_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_console = {"quiet": False, "line_open": False}


def hush(quiet: bool = True) -> None:
    """From now on `note` and `Progress` print nothing; `hush(False)` lets them again."""
    _console["quiet"] = quiet


def say(text: str) -> None:
    """Prints a result on stdout."""
    _print(text, sys.stdout)


def note(text: str) -> None:
    """Prints what is going on, on stderr, unless hushed."""
    if not _console["quiet"]:
        _print(text, sys.stderr)


def warn(text: str) -> None:
    """Prints `warning: text` on stderr."""
    _print(f"warning: {text}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    if _console["line_open"]:
        sys.stderr.write(_ERASE)
        sys.stderr.flush()
        _console["line_open"] = False
    print(text, file=stream, flush=True)


def interject(text: str) -> None:
    """`note` for signal handlers, which may run in the middle of another print."""
    if not _console["quiet"]:
        os.write(2, f"\n{text}\n".encode())


class Writer(Protocol):
    """Takes a row of numbers for a step: `MetricsLog` is one, a TensorBoard writer would be another."""

    def write(self, step: int, row: dict[str, Any]) -> None: ...


class Nowhere:
    """A metrics log that keeps nothing: for every process but the first."""

    def write(self, step: int, row: dict[str, Any]) -> None:
        """Drops the row."""

    def flush(self) -> None:
        """Has nothing to wait for."""

    def truncate_after(self, step: float) -> None:
        """Has nothing to drop."""


class LogError(ValueError):
    """A metrics file has a line that no run of ours wrote; names the file and the line."""


class MetricsLog:
    """Metrics as JSON lines `{"step": 10, "loss": 0.3, ...}`, in steps that never go back.

    A row is one write to the operating system, so `kill -9` loses none; `flush` makes the rows outlast a power cut too,
    and belongs before each checkpoint. Order to hold: write the rows of a step, `flush`, save the step; on resume
    `truncate_after(step)`. With rows that depend on (seed, step) alone (no times), the file of a killed and resumed run
    is then byte for byte that of an uninterrupted one. On several processes only the first should write. The file is
    open only while a row is written, so there is nothing to close.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.truncate_after(math.inf)

    def write(self, step: int, row: dict[str, Any]) -> None:
        """Appends a row of numbers, strings, arrays or nested dicts. float32 is written as its exact float64 value.

        nan and infinities become "nan", "inf" and "-inf", as JSON has none. Raises ValueError if `step` goes back, and
        OSError on a full disk, with the file as it was.
        """
        if step < self._step:
            raise ValueError(f"{self.path}: step {step} comes after step {self._step}; truncate_after({step}) first")
        line = json.dumps({"step": int(step), **_plain(row)}, allow_nan=False).encode() + b"\n"
        with open(self.path, "ab", buffering=0) as stream:
            written = stream.write(line)
        if written != len(line):  # a full disk may take part of a line
            os.truncate(self.path, self._size)
            raise OSError(f"{self.path}: only {written} of the {len(line)} bytes of a row could be written")
        self._step, self._size = int(step), self._size + len(line)

    def flush(self) -> None:
        """Waits until every row is on the disk."""
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())

    def truncate_after(self, step: float) -> None:
        """Drops the rows later than `step` and a torn last line; -1 empties the file. Raises LogError on damage."""
        self._step, self._size = -1, 0
        for row, end in _parsed(self.path):
            if row is None or row["step"] > step:
                break
            self._step, self._size = row["step"], end
        os.truncate(self.path, self._size)


def rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file, nan and infinities as floats; a torn last line is left out. Raises LogError."""
    return (_numbers(row) for row, _ in _parsed(path) if row is not None)


def _parsed(path: str | os.PathLike) -> Iterator[tuple[dict | None, int]]:
    """Each line's row, and the offset of its end; the row of a line that the end of the file cuts short is None."""
    end = 0
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            row, end = _row(line), end + len(line)
            if row is None and line.endswith(b"\n"):
                raise LogError(f"{path}: line {number} is damaged: {line[:60]!r}")
            yield row, end


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _plain(value: Any) -> Any:
    """JSON's own types for whatever holds numbers."""
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "biu":
        return array.tolist()
    with np.errstate(invalid="ignore"):  # signalling nans
        return _plain(array.astype(np.float64).tolist())


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return _NAMED_FLOATS.get(value, value) if isinstance(value, str) else value


class Progress:
    """How far a loop is, its speed, the time left and the newest metrics, on stderr.

    On a terminal one line is rewritten up to 10 times a second; elsewhere (a file, a pipe) a line is printed every
    10 s and at the end. `start` is the step a resumed loop begins at. The time left is judged from the steps after the
    first update, which has the compilation in it.
    """

    def __init__(
        self, total: int, *, start: int = 0, label: str = "step", stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._label, self._clock = total, label, clock
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._first: tuple[int, float] | None = None
        self._shown = clock()
        self._last = (start, {})

    def update(self, done: int, metrics: dict[str, Any] | None = None) -> None:
        """`done` steps of `total` are finished. `metrics` are floats to show beside it."""
        now = self._clock()
        self._last = (done, metrics or {})
        if self._first is None:
            self._first = (done, now)
        if now - self._shown >= (0.1 if self._live else 10.0):
            self._show(now)

    def close(self) -> None:
        """Prints where the loop ended, on a line that stays."""
        self._show(self._clock())
        if self._live and _console["line_open"]:
            self._stream.write("\n")
            self._stream.flush()
            _console["line_open"] = False

    def _show(self, now: float) -> None:
        self._shown = now
        if _console["quiet"]:
            return
        text = self._text(now)
        if self._live:
            self._stream.write(_ERASE + text[: shutil.get_terminal_size().columns - 1])
            self._stream.flush()
            _console["line_open"] = True
        else:
            print(text, file=self._stream, flush=True)

    def _text(self, now: float) -> str:
        done, metrics = self._last
        part = done / max(self._total, 1)
        bar = f"[{'=' * round(20 * part):20}] " if self._live else ""
        numbers = "  ".join(f"{name} {float(np.mean(value)):.4g}" for name, value in metrics.items())
        return f"{self._label} {done}/{self._total} {bar}{100 * part:3.0f}%{self._pace(done, now)}  {numbers}".rstrip()

    def _pace(self, done: int, now: float) -> str:
        if self._first is None or done <= self._first[0] or now <= self._first[1]:
            return ""
        rate = (done - self._first[0]) / (now - self._first[1])
        left = "" if done >= self._total else f"  {clock_time((self._total - done) / rate)} left"
        return f"  {rate:.3g}/s{left}"


def clock_time(seconds: float) -> str:
    """Seconds as `0:07`, `12:30` or `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
