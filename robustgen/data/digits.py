"""The embedded data set: 1797 handwritten digits of 8 x 8 pixels, which scikit-learn carries. No download.

Origin: UCI "Optical Recognition of Handwritten Digits", test part (E. Alpaydin, C. Kaynak, 1998), CC BY 4.0.
"""

import functools
import gzip
import importlib.util
import pathlib
from typing import Annotated, NoReturn

import numpy as np

from robustgen.data.source import DataError, Source, Split, SplitName, known_split
from robustgen.knobs import Range, checked

NUM_EXAMPLES, NUM_TEST = 1797, 500
PERMUTATION_SEED = 20240607
"""Of NumPy's `RandomState`, whose stream is frozen. The stored order goes writer by writer, so the split is drawn."""


@checked
def digits(*, num_validation: Annotated[int, Range(1, NUM_EXAMPLES - NUM_TEST - 1)]) -> Source:
    """Images (8, 8, 1) uint8 from 0 to 16, ten classes: 500 for test, `num_validation` held out, the rest to train on.

    One fixed permutation, then test, validation and train in this order: the test split never depends on
    `num_validation`, and a smaller validation split is the start of a larger one.
    """
    bounds = {
        "test": slice(0, NUM_TEST),
        "validation": slice(NUM_TEST, NUM_TEST + num_validation),
        "train": slice(NUM_TEST + num_validation, NUM_EXAMPLES),
    }

    def load(split: SplitName) -> Split:
        known_split(split)
        return Split(*(array[bounds[split]] for array in _permuted()))

    return Source("digits", (8, 8, 1), 10, 1 / 16, load, check=lambda: None if _file() else _missing())


@functools.cache
def _permuted() -> Split:
    table = _table()
    order = np.random.RandomState(PERMUTATION_SEED).permutation(NUM_EXAMPLES)
    x = table[order, :64].reshape(-1, 8, 8, 1)
    return Split(x, table[order, 64].astype(np.int32))


def _table() -> np.ndarray:
    """[1797, 65] uint8, 64 pixels and the label. `sklearn.datasets` would take a second to import for the same."""
    path = _file() or _missing()
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    if table.shape != (NUM_EXAMPLES, 65):
        raise DataError(f"{path} is not scikit-learn's digits: pip install --force-reinstall scikit-learn")
    return table


def _file() -> pathlib.Path | None:
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        return None
    path = pathlib.Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    return path if path.is_file() else None


def _missing() -> NoReturn:
    raise DataError("the digits data set comes with scikit-learn, which is missing: pip install 'scikit-learn>=1.5'")
