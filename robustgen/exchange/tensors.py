"""ONNX tensors as NumPy arrays, sizes checked before anything is made. External data only from beside the model."""

import math
import os
import pathlib
from typing import Any

import numpy as np

from robustgen.exchange import limits

DTYPES = {  # TensorProto.DataType -> dtype; the others (strings, complex, 4 and 8 bit floats, ...) are refused
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
}
_LISTS = {1: "float_data", 7: "int64_data", 11: "double_data"}  # the others lie in int32_data
_EXTERNAL = 1


class BadTensor(ValueError):
    """A tensor that cannot be used, and why; the importer says which one it is."""


def dtype_of(number: int) -> np.dtype:
    """The dtype of ONNX's type number. Raises `BadTensor`."""
    if number not in DTYPES:
        raise BadTensor(f"has data type {number}; supported are {', '.join(map(str, DTYPES.values()))}")
    return DTYPES[number]


def shape_of(dims: Any) -> tuple[int, ...]:
    """A shape that is small enough. Raises `BadTensor`."""
    shape = tuple(map(int, dims))
    if len(shape) > limits.RANK or any(size < 0 for size in shape) or math.prod(shape) > limits.STORED_ELEMENTS:
        listed = f"{list(shape)}" if len(shape) <= limits.RANK else f"{len(shape)} axes"
        raise BadTensor(f"has shape {listed}; at most {limits.RANK} axes and {limits.STORED_ELEMENTS} elements")
    return shape


def array(tensor: Any, folder: pathlib.Path) -> np.ndarray:
    """The array of a TensorProto; external data may lie in `folder` or below it. Raises `BadTensor`."""
    dtype, shape = dtype_of(tensor.data_type), shape_of(tensor.dims)
    expected = math.prod(shape) * dtype.itemsize
    if tensor.data_location == _EXTERNAL:
        return _decoded(_external(tensor, folder, expected), dtype, shape)
    if tensor.HasField("raw_data"):
        return _decoded(tensor.raw_data, dtype, shape)
    numbers = getattr(tensor, _LISTS.get(tensor.data_type, "int32_data"))
    if len(numbers) != math.prod(shape):
        raise BadTensor(f"has {len(numbers)} numbers for shape {list(shape)}")
    if dtype == np.float16:  # its bits lie in the integers
        return np.array(numbers, np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    return np.array(numbers).astype(dtype).reshape(shape)


def _decoded(content: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise BadTensor(f"has {len(content)} bytes for shape {list(shape)} of {dtype}")
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")
    return np.frombuffer(content, stored).astype(dtype).reshape(shape)


def _external(tensor: Any, folder: pathlib.Path, expected: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data if isinstance(entry.value, str)}
    location = entries.get("location", "")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, location)) if "\0" not in location else ""
    if not location or os.path.isabs(location) or os.path.commonpath([root, path or os.sep]) != root:
        raise BadTensor(f"has its data in {location!r}, which is not in the model's folder")
    offset, length = (_size(entries, key, default) for key, default in (("offset", 0), ("length", expected)))
    if length != expected:
        raise BadTensor(f"has {length} bytes of external data; its shape needs {expected}")
    try:
        if not os.path.isfile(path) or os.path.getsize(path) < offset + expected:
            raise BadTensor(f"needs {expected} bytes at {offset} of {location!r}, which are not there")
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(expected)
    except OSError as error:
        raise BadTensor(f"has its data in {location!r}, which cannot be read ({error})") from error


def _size(entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadTensor(f"has external data with {key} {text[:40]!r}")
    return int(text)
