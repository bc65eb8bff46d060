"""Your own data: NumPy arrays, or an `.npz` file of them, checked and made a `Source`."""

import functools
import pathlib
import zipfile
from typing import Any

import numpy as np

from robustgen.data.source import SPLITS, DataError, Source, Split, SplitName, known_split
from robustgen.knobs import Count, KnobError, Positive, checked

PERMUTATION_SEED = 20240607
"""Of NumPy's `RandomState`, whose stream is frozen."""

Pair = tuple[Any, Any]


@checked
def arrays(
    *, name: str, train: Pair, validation: Pair, test: Pair, num_classes: Count, scale: Positive | None = None
) -> Source:
    """A source of three pairs (x [N, ...], y [N]) that are in memory.

    x is uint8 or float; float64 becomes float32, and uint8 images [N, H, W] get a channel axis. Models see `x * scale`:
    1/255 for uint8 and 1 for float, unless given. y holds whole numbers from 0 to num_classes - 1. Raises `DataError`
    where an array is not so: other types, unequal lengths or shapes, labels out of range, values not finite, images
    that leave [0, 1] after scaling.
    """
    pairs = dict(zip(SPLITS, (train, validation, test), strict=True))
    splits = {split: _clean(f"{name} {split}", *pair, num_classes) for split, pair in pairs.items()}
    scale = _default_scale(splits["train"].x.dtype) if scale is None else scale
    x = splits["train"].x
    for split, (other, _) in splits.items():
        if other.shape[1:] != x.shape[1:] or other.dtype != x.dtype:
            raise DataError(
                f"{name} {split}: x is {other.dtype} {other.shape[1:]}, but that of train is {x.dtype} {x.shape[1:]}"
            )
        _check_values(f"{name} {split}", other, scale)

    def load(split: SplitName) -> Split:
        known_split(split)
        return splits[split]

    return Source(name, x.shape[1:], num_classes, scale, load, check=lambda: None)


@checked
def npz(*, path: str, num_classes: Count, num_validation: Count, scale: Positive | None = None) -> Source:
    """A source of an `.npz` file with x_train, y_train, x_test, y_test (the form of Keras' mnist.npz); never unpickles.

    After one fixed permutation the last `num_validation` of train are held out for validation. The arrays have to be as
    `arrays` wants them. Raises `DataError` at once where the file or an array is missing, and later what `arrays` does.
    """
    shapes, dtype = _headers(path)
    if num_validation >= shapes["x_train"][0]:
        raise KnobError("num_validation", f"must leave some of {shapes['x_train'][0]} to train on")

    @functools.cache
    def read() -> Source:
        x, y, x_test, y_test = _arrays(path)
        order = np.random.RandomState(PERMUTATION_SEED).permutation(len(y))
        kept, held = order[:-num_validation], order[-num_validation:]
        pairs = {"train": (x[kept], y[kept]), "validation": (x[held], y[held]), "test": (x_test, y_test)}
        return arrays(name=name, num_classes=num_classes, scale=scale, **pairs)

    def check() -> None:
        _headers(path)

    name, shape = pathlib.Path(path).stem, _with_channel(shapes["x_train"], dtype)[1:]
    scale = _default_scale(dtype) if scale is None else scale
    return Source(name, shape, num_classes, scale, lambda split: read().load(split), check)


ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def _headers(path: str) -> tuple[dict[str, tuple[int, ...]], np.dtype]:
    """The shapes of the arrays and the type of x_train, read without the arrays themselves."""
    shapes, dtypes = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key in ARRAYS:
                with archive.open(f"{key}.npy") as file:
                    major, _ = np.lib.format.read_magic(file)
                    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                    shapes[key], _, dtypes[key] = read(file)
    except KeyError as error:
        raise DataError(f"{path} lacks {key}: needs {', '.join(ARRAYS)}") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from error
    for key in ("x_train", "x_test"):
        if shapes[key][:1] != shapes["y" + key[1:]] or len(shapes[key]) < 2:
            raise DataError(f"{path}: {key} {shapes[key]}, y{key[1:]} {shapes['y' + key[1:]]}: not [N, ...] and [N]")
    return shapes, dtypes["x_train"]


def _arrays(path: str) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[key] for key in ARRAYS]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from error


def _clean(what: str, x: Any, y: Any, num_classes: int) -> Split:
    """The pair in the types of a `Split`, or `DataError`."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise DataError(f"{what}: x must be [N, ...] and y [N], with N > 0; got {x.shape} and {y.shape}")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise DataError(f"{what}: x must be uint8 or float; got {x.dtype} (pixels: x.astype(np.uint8))")
    if y.dtype.kind not in "iu":
        raise DataError(f"{what}: y must be whole numbers; got {y.dtype}")
    if y.min() < 0 or y.max() >= num_classes:
        raise DataError(f"{what}: y must be from 0 to {num_classes - 1}; got {y.min()} to {y.max()}")
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    return Split(x.reshape(_with_channel(x.shape, x.dtype)), y.astype(np.int32))


def _check_values(what: str, x: np.ndarray, scale: float) -> None:
    low, high = float(x.min()) * scale, float(x.max()) * scale
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{what}: x has values that are not finite")
    if x.ndim == 4 and (low < 0 or high > 1 + 1e-6):
        raise DataError(f"{what}: images times scale {scale:g} must be in [0, 1]; they go from {low:g} to {high:g}")


def _with_channel(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    return (*shape, 1) if len(shape) == 3 and dtype == np.uint8 else shape


def _default_scale(dtype: np.dtype) -> float:
    return 1 / 255 if dtype == np.uint8 else 1.0
