"""A file that records are appended to as work is done: `kill -9` loses a moment's work and no more.

A record is whole or not there: each carries its length and a checksum, and reading stops at the first that does not
hold (the one being written when the process died), which is then cut off. The first record says what the work is; the
file of anything else is refused, and left as it is.
"""

import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_FRAME = struct.Struct("<II")  # length and checksum of what follows


class JournalError(ValueError):
    """The file belongs to other work."""


class Records:
    """An open file of records. `past` is what it held when opened; `add` appends; `flush` hands all to the system."""

    def __init__(self, file: BinaryIO | None, past: list[bytes]):
        self._file, self.past = file, past

    def add(self, record: bytes) -> None:
        """Appends a record, which is not empty."""
        if self._file:
            self._file.write(_framed(record))

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


def open_records(path: pathlib.Path | None, identity: dict, *, kind: str) -> Records:
    """The records at `path` of the work `identity` (of JSON types), begun or taken up; None keeps none.

    `kind` names the work in messages ("evaluation"). Raises `JournalError` where the file was begun for another.
    """
    if path is None:
        return Records(None, [])
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b")
    try:
        return Records(file, _take_up(file, path, identity, kind))
    except BaseException:
        file.close()
        raise


def _take_up(file: BinaryIO, path: pathlib.Path, identity: dict, kind: str) -> list[bytes]:
    file.seek(0)
    records = _records(file)
    ours = json.dumps(identity, sort_keys=True).encode()
    first, end = next(records, (None, 0))
    if first is None:
        _refuse_foreign(file, path, ours, kind)
    elif first != ours:
        other = _difference(first, ours)
        raise JournalError(f"{path} is of another {kind} ({other}): name another file or remove it")
    past = []
    for record, record_end in records:
        past.append(record)
        end = record_end
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    if first is None:
        file.write(_framed(ours))
        file.flush()
    return past


def _refuse_foreign(file: BinaryIO, path: pathlib.Path, ours: bytes, kind: str) -> None:
    """Raises `JournalError` unless the file is empty, or the beginning of our first record."""
    file.seek(0)
    if not _framed(ours).startswith(file.read()):
        raise JournalError(
            f"{path} is no journal of any {kind}, or its beginning is damaged: name another file or remove it"
        )


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


def _framed(record: bytes) -> bytes:
    return _FRAME.pack(len(record), zlib.crc32(record)) + record
