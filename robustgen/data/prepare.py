"""Preparing a TFDS data set, once: download, and writing as `array_record`. Only this step needs TensorFlow."""

import difflib
import importlib.util
import os
import pathlib

from robustgen.data.catalogue import Prepared, find, versions
from robustgen.data.source import DataError

NEEDS_TENSORFLOW = (
    "preparing {name} needs TensorFlow, for this one step: pip install 'robustgen[tf]' (or: pip install tensorflow-cpu)"
)


def prepare(name: str, root: pathlib.Path) -> Prepared:
    """Downloads `name` (`mnist`, `cifar10_corrupted/fog_1`) and writes it to `root` as TFDS `array_record` files.

    Nothing is done where it is there already. An interrupted preparation leaves no half data set. Raises `DataError` in
    one line: no TensorFlow, unknown name, failed download, and data that `tfds` could not read afterwards.
    """
    base, _, version = name.partition(":")
    if versions(root / base, version):
        return find(name, root)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or TensorFlow greets with a page of notes on this machine
    import tensorflow_datasets as tfds  # seconds with TensorFlow behind it

    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        raise DataError(f"TFDS has no data set {name!r}" + (f": {', '.join(near)}?" if near else "")) from error
    except (ValueError, ImportError) as error:
        raise DataError(f"TFDS cannot set up {name!r}: {_line(error)}") from error
    stock = type(builder).__module__.startswith("tensorflow_datasets.")
    if stock and importlib.util.find_spec("tensorflow") is None:
        raise DataError(NEEDS_TENSORFLOW.format(name=name))
    _download_and_prepare(name, root, builder)
    return find(name, root)


def _download_and_prepare(name: str, root: pathlib.Path, builder) -> None:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError
    from tensorflow_datasets.core.download.util import DownloadError

    try:
        builder.download_and_prepare()
    except (OSError, DownloadError, NonMatchingChecksumError, ExtractError) as error:  # requests' errors are OSErrors
        raise DataError(
            f"downloading {name} failed: {_line(error)}; the same command tries again, and what is complete in "
            f"{root / 'downloads'} is kept"
        ) from error
    except AssertionError as error:  # what TFDS raises where a user has to fetch files by hand
        raise DataError(f"preparing {name} failed: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """The gist of an exception in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
