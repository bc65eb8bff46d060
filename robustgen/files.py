"""Files that are whole or not there: whoever reads, or kills, finds the old file or the new one and nothing between."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import BinaryIO


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> pathlib.Path:
    """Calls `write(file)` with a binary file that takes the name `path` when it is complete and on the disk, only then.

    Makes the folder where it is missing. Raises what `write` raises, and OSError, with nothing left behind.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:  # whatever stopped it, an interrupt included, leaves nothing behind
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)
    return path


def replace_file(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """`write_whole` of bytes that are in memory."""
    return write_whole(path, lambda file: file.write(content))


def _flush_folder(folder: pathlib.Path) -> None:
    """Makes a rename outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
