"""What a data set is to everything else: a `Source`, which hands out three splits and says what they hold.

A source costs nothing until a split is asked for; `check` tells in a moment whether that will work. Training is handed
a `sealed` source, so no test example can reach it.
"""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class DataError(Exception):
    """Data that is missing, damaged or not what it should be. The message is one line and names the remedy."""


class TestSplitError(DataError):
    """Training asked for the test split."""

    __test__ = False  # pytest takes every class named Test* for a collection of tests


class Split(NamedTuple):
    """Examples as they are stored: x [N, ...] uint8 or float32, y [N] int32. Models are fed `x * source.scale`."""

    x: np.ndarray
    y: np.ndarray


class Source(NamedTuple):
    """A data set.

    name           for records and reports
    shape          of one example: (28, 28, 1)
    num_classes    labels are 0 ... num_classes - 1
    scale          what stored values are multiplied by, in float32, to give what models see: [0, 1] for images
    load(split)    the `Split`, read at the first call and kept for the life of the process; raises `DataError`
    check()        raises `DataError` where `load` cannot work, having read next to nothing and touched no device
    """

    name: str
    shape: tuple[int, ...]
    num_classes: int
    scale: float
    load: Callable[[SplitName], Split]
    check: Callable[[], None]


def sealed(source: Source) -> Source:
    """The same source, but its test split raises `TestSplitError`: what training is handed."""

    def load(split: SplitName) -> Split:
        if split == "test":
            raise TestSplitError(f"training may not read the test split of {source.name}: select on 'validation'")
        return source.load(split)

    return source._replace(load=load)


def first(source: Source, num_examples: int) -> Source:
    """The same source with at most the first `num_examples` of each split, for quick runs."""

    def load(split: SplitName) -> Split:
        x, y = source.load(split)
        return Split(x[:num_examples], y[:num_examples])

    return source._replace(name=f"{source.name}[:{num_examples}]", load=load)


def fingerprint(source: Source, split: SplitName) -> str:
    """SHA-256 (hex) over shape, type and bytes of a split's examples and labels: the data's part of a run's record."""
    digest = hashlib.sha256()
    for array in source.load(split):
        digest.update(f"{array.shape} {array.dtype.str}\n".encode())
        digest.update(memoryview(np.ascontiguousarray(array)).cast("B"))
    return digest.hexdigest()


def scaled(split: Split, scale: float) -> Split:
    """The split as models see it, x float32, still in NumPy: `x * scale`, rounded as `epochs.take` rounds it."""
    return Split(split.x.astype(np.float32) * np.float32(scale), split.y)


def known_split(split: str) -> None:
    """Raises `DataError` unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
