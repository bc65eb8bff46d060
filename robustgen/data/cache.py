"""Decoded data sets kept on disk: each is decoded once, and from then on memory-mapped.

An entry is a folder of two `.npy` files and a manifest with the hash of what they were decoded from and their own. The
manifest is written last and every file moved into place whole, so an entry that was interrupted, damaged or belongs
to other records does not verify; it is then decoded again and replaced, never used.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
from absl import logging

from robustgen.data.source import Split
from robustgen.files import replace_file, write_whole

MANIFEST = "manifest.json"


def cache_dir() -> pathlib.Path:
    """`ROBUSTGEN_CACHE`, or `robustgen` in the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`)."""
    if own := os.environ.get("ROBUSTGEN_CACHE"):
        return pathlib.Path(own).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "robustgen"


def cached(name: str, origin: list[pathlib.Path], decode: Callable[[], Split]) -> Split:
    """The split that `decode()` gives, memory-mapped (read-only) from the cache; decoded where it is not there yet.

    `origin` are the files it is decoded from: other contents make another entry. Where the cache folder cannot be
    written the decoded arrays are returned, and the next process decodes again.
    """
    records = _hash_of_all(origin)
    folder = cache_dir() / "data" / f"{name}-{records[:16]}"
    split = _read(folder, records)
    if split is None:
        split = decode()
        try:
            _write(folder, records, split)
        except OSError as error:
            logging.warning("cannot keep %s decoded in %s (%s): the next run decodes it again", name, folder, error)
            return split
        split = _read(folder, records) or split
    return split


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_all(paths: list[pathlib.Path]) -> str:
    listing = "".join(f"{file_hash(path)}  {path.name}\n" for path in sorted(paths))
    return hashlib.sha256(listing.encode()).hexdigest()


def _read(folder: pathlib.Path, records: str) -> Split | None:
    """The entry, or None unless every byte of it is what was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        expected = {"records": records, "files": {f.name: file_hash(f) for f in _arrays(folder)}}
        if manifest != expected:
            return None
        return Split(*(np.load(f, mmap_mode="r", allow_pickle=False) for f in _arrays(folder)))
    except (OSError, ValueError):  # absent, unreadable, or no JSON
        return None


def _write(folder: pathlib.Path, records: str, split: Split) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    for path, array in zip(_arrays(folder), split, strict=True):
        write_whole(path, lambda file, array=array: np.save(file, array, allow_pickle=False))
    manifest = {"records": records, "files": {f.name: file_hash(f) for f in _arrays(folder)}}
    replace_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _arrays(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / "x.npy", folder / "y.npy"
