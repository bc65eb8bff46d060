"""Files as bytes: gzipped or not, never more than a limit."""

import gzip
import os
import pathlib
import zlib

_MAGIC = b"\x1f\x8b"  # what gzipped files begin with, whatever they are called


class Unreadable(ValueError):
    """Why a file has no bytes for us; callers say it in the exception of their kind of file."""


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """All bytes of a file, decompressed where it is gzipped. Raises `Unreadable`, also beyond `limit` bytes."""
    path = pathlib.Path(path)
    try:
        if not os.path.isfile(path):
            raise Unreadable("is a folder or no plain file" if os.path.exists(path) else "no such file")
        with path.open("rb") as file:
            zipped = file.read(len(_MAGIC)) == _MAGIC
        with gzip.open(path) if zipped else path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(f"cannot be read ({error})") from error
    if len(content) > limit:
        raise Unreadable(f"has more than {limit} bytes{' decompressed' if zipped else ''}, the most that is read")
    return content


def existing(path: pathlib.Path) -> pathlib.Path:
    """`path`, or `path`.gz where only that is there."""
    zipped = path.with_name(path.name + ".gz")
    return zipped if os.path.isfile(zipped) and not os.path.isfile(path) else path
