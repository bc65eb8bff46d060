"""Data sets of the TFDS catalogue, read without TensorFlow from folders that TFDS has prepared as `array_record`.

Records are decoded once, through TFDS, and kept as arrays in the cache; from then on TFDS is not even imported.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from robustgen.data.cache import cached
from robustgen.data.catalogue import Prepared, data_dir, find
from robustgen.data.source import DataError, Source, Split, SplitName, known_split
from robustgen.knobs import Count, KnobError, checked

CHUNK, THREADS = 500, 2
"""Examples decoded at a time, and how many chunks side by side: decoding a PNG leaves the interpreter free."""


@checked
def tfds(*, name: str, num_validation: Count, dir: str | None = None) -> Source:
    """Images and labels of a TFDS data set with `image` (one shape) and `label`: mnist, fashion_mnist, cifar10, ...

    `dir` is the TFDS data folder (default `TFDS_DATA_DIR`, then `~/tensorflow_datasets`). Examples stay in TFDS' order,
    which is by hash, not that of the original files, hence already mixed: the last `num_validation` of 'train' are held
    out for validation. Raises `DataError` with the command to run where the set is not prepared, and `KnobError`.
    """
    prepared = find(name, data_dir(dir))
    lacking = {"train", "test"} - set(prepared.sizes)
    if lacking:
        raise DataError(f"{name} has no split {' or '.join(sorted(lacking))}, only {', '.join(prepared.sizes)}")
    num_train = prepared.sizes["train"] - num_validation
    if num_train < 1:
        raise KnobError("num_validation", f"must leave some of {prepared.sizes['train']} to train on")
    part = {"train": slice(0, num_train), "validation": slice(num_train, None), "test": slice(None)}

    whole = functools.cache(lambda split: read(prepared, split))

    def load(split: SplitName) -> Split:
        known_split(split)
        x, y = whole("test" if split == "test" else "train")
        return Split(x[part[split]], y[part[split]])

    scale = 1 / 255 if prepared.dtype == "uint8" else 1.0
    return Source(name, prepared.shape, prepared.num_classes, scale, load, lambda: _check(prepared))


def read(prepared: Prepared, split: str) -> Split:
    """A whole TFDS split: x [N, *shape], y [N] int32. Decodes at the first call ever."""
    _check(prepared)
    name = f"{prepared.name.replace('/', '-')}-{prepared.version}-{split}"
    return cached(name, prepared.records(split), lambda: decode(prepared, split))


def decode(prepared: Prepared, split: str) -> Split:
    """Decodes a split through TFDS, with a progress bar where it takes more than two seconds. Raises `DataError`."""
    records = _data_source(prepared, split)
    starts = range(0, len(records), CHUNK)
    x = np.empty((len(records), *prepared.shape), prepared.dtype)
    y = np.empty(len(records), np.int32)

    def fill(start: int) -> int:
        chunk = records.__getitems__(list(range(start, min(start + CHUNK, len(records)))))
        for i, example in enumerate(chunk, start):
            if example["image"] is None or example["label"] is None:  # what a file cut short reads as
                raise ValueError(f"record {i} is empty")
            x[i], y[i] = example["image"], example["label"]
        return len(chunk)

    bar = tqdm(desc=f"decoding {prepared.name} {split}", total=len(records), unit=" images", delay=2, leave=False)
    try:
        with bar, ThreadPoolExecutor(THREADS) as pool:
            for done in pool.map(fill, starts):
                bar.update(done)
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        raise _damaged(prepared, f"{split}: {str(error).splitlines()[0]}") from error
    if y.size and not (0 <= y.min() and y.max() < prepared.num_classes):
        raise _damaged(prepared, f"{split}: labels from {y.min()} to {y.max()}")
    return Split(x, y)


def _data_source(prepared: Prepared, split: str):
    try:
        import tensorflow_datasets  # half a second, and not needed once a set is decoded

        return tensorflow_datasets.builder_from_directory(prepared.folder).as_data_source(split)
    except ImportError as error:
        raise DataError(f"decoding {prepared.name} lacks {error.name}: pip install {error.name}") from error


def _check(prepared: Prepared) -> None:
    for split in ("train", "test"):
        files = prepared.records(split)
        promised = int(files[0].name.rsplit("-", 1)[-1]) if files else 1
        if len(files) != promised or not all(f.stat().st_size for f in files):
            raise _damaged(prepared, f"{split}: {len(files)} of {promised} record files, or empty ones")


def _damaged(prepared: Prepared, what: str) -> DataError:
    root = prepared.folder.parents[1 + prepared.name.count("/")]
    return DataError(
        f"{prepared.folder} is damaged ({what}): delete it and run: robustgen prepare {prepared.name} --dir={root}"
    )
