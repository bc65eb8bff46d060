"""What a cascade has decided so far, appended to a file as it is decided (`robustgen.records`)."""

import pathlib
import struct
from typing import NamedTuple

import numpy as np

from robustgen.records import JournalError as JournalError
from robustgen.records import Records, open_records

_DECISION = struct.Struct("<iqii?")


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

    def __init__(self, records: Records, past: list[Decision]):
        self._records, self.past = records, past

    def add(self, decision: Decision) -> None:
        """Appends a decision."""
        self._records.add(_encode(decision))

    def flush(self) -> None:
        """After this, only the machine's death loses what was added."""
        self._records.flush()

    def close(self) -> None:
        """Flushes to the disk and closes."""
        self._records.close()


def open_journal(path: pathlib.Path | None, identity: dict, shape: tuple[int, ...]) -> Journal:
    """The journal at `path` of the evaluation `identity` (of JSON types), begun or taken up; None keeps none.

    `shape` is that of one example. Raises `JournalError` where the file was begun for something else.
    """
    records = open_records(path, identity, kind="evaluation")
    return Journal(records, [_decode(record, shape) for record in records.past])


def _encode(decision: Decision) -> bytes:
    x_adv = decision.x_adv
    head = _DECISION.pack(decision.stage, decision.row, decision.number, decision.steps, x_adv is not None)
    return head if x_adv is None else head + np.ascontiguousarray(x_adv, "<f4").tobytes()


def _decode(record: bytes, shape: tuple[int, ...]) -> Decision:
    stage, row, number, steps, broke = _DECISION.unpack_from(record)
    x_adv = np.frombuffer(record, "<f4", offset=_DECISION.size).reshape(shape) if broke else None
    return Decision(stage, row, number, steps, x_adv)
