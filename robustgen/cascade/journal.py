"""What a cascade has decided so far, appended to a file as it is decided: `kill -9` loses a moment's work and no more.

A record is whole or not there: each carries its length and a checksum, and reading stops at the first that does not
hold (the one being written when the process died), which is then cut off. The first record says what is being
evaluated; the journal of anything else is refused.
"""

import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

_FRAME = struct.Struct("<II")  # length and checksum of what follows
_DECISION = struct.Struct("<iqii?")


class JournalError(ValueError):
    """The journal belongs to another evaluation."""


class Decision(NamedTuple):
    """One finished run: attack number `stage`, example `row`, run `number` in its order, `steps` made; where it broke
    the example, `x_adv`."""

    stage: int
    row: int
    number: int
    steps: int
    x_adv: np.ndarray | None


class Journal:
    """An open journal. `past` is what it held when opened; `add` appends; `flush` hands everything to the system."""

    def __init__(self, file: BinaryIO | None, past: list[Decision]):
        self._file, self.past = file, past

    def add(self, decision: Decision) -> None:
        """Appends a decision."""
        if self._file:
            _write(self._file, _encode(decision))

    def flush(self) -> None:
        """After this, only the machine's death loses what was added."""
        if self._file:
            self._file.flush()

    def close(self) -> None:
        """Flushes to the disk and closes."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def open_journal(path: pathlib.Path | None, identity: dict, shape: tuple[int, ...]) -> Journal:
    """The journal at `path` of the evaluation `identity` (of JSON types), begun or taken up; None keeps none.

    `shape` is that of one example. Raises `JournalError` where the file was begun for something else.
    """
    if path is None:
        return Journal(None, [])
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b")
    try:
        return Journal(file, _take_up(file, path, identity, shape))
    except BaseException:
        file.close()
        raise


def _take_up(file: BinaryIO, path: pathlib.Path, identity: dict, shape: tuple[int, ...]) -> list[Decision]:
    file.seek(0)
    records = _records(file)
    ours = json.dumps(identity, sort_keys=True).encode()
    first, end = next(records, (None, 0))
    if first is None:
        _refuse_foreign(file, path, ours)
    elif first != ours:
        other = _difference(first, ours)
        raise JournalError(f"{path} is of another evaluation ({other}): name another file or remove it")
    decisions = []
    for record, record_end in records:
        decisions.append(_decode(record, shape))
        end = record_end
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    if first is None:
        _write(file, ours)
        file.flush()
    return decisions


def _refuse_foreign(file: BinaryIO, path: pathlib.Path, ours: bytes) -> None:
    """Raises `JournalError` unless the file is empty, or the beginning of our first record."""
    file.seek(0)
    if not _framed(ours).startswith(file.read()):
        damage = "is no journal of a cascade, or its beginning is damaged"
        raise JournalError(f"{path} {damage}: name another file or remove it")


def _difference(theirs: bytes, ours: bytes) -> str:
    a, b = json.loads(theirs), json.loads(ours)
    return "other " + ", ".join(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)))


def _records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each whole record and where it ends."""
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(frame)
        record = file.read(length)
        if not record or len(record) < length or zlib.crc32(record) != checksum:
            return
        yield record, file.tell()


def _write(file: BinaryIO, record: bytes) -> None:
    file.write(_framed(record))


def _framed(record: bytes) -> bytes:
    return _FRAME.pack(len(record), zlib.crc32(record)) + record


def _encode(decision: Decision) -> bytes:
    x_adv = decision.x_adv
    head = _DECISION.pack(decision.stage, decision.row, decision.number, decision.steps, x_adv is not None)
    return head if x_adv is None else head + np.ascontiguousarray(x_adv, "<f4").tobytes()


def _decode(record: bytes, shape: tuple[int, ...]) -> Decision:
    stage, row, number, steps, broke = _DECISION.unpack_from(record)
    x_adv = np.frombuffer(record, "<f4", offset=_DECISION.size).reshape(shape) if broke else None
    return Decision(stage, row, number, steps, x_adv)
