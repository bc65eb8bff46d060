"""Folders that are whole or told from those that are not, whatever kills the process or flips a bit.

`write` puts `MANIFEST` into a folder: a line with the SHA-256 of the rest, and JSON with the caller's entries and,
under "files", the size and SHA-256 of every other file. `damage` compares. It tells flipped bits, truncation, missing,
added and swapped files, not forgery: whoever can write the folder can write a fitting manifest.

A folder is filled under a `hidden` name, and `publish`ed by one rename; `remove` takes it away by one rename; `tidy`
clears what a process left that was killed in between.
"""

import hashlib
import json
import os
import pathlib
import shutil

MANIFEST = "MANIFEST"
FORMAT = 1
_SAVING, _REMOVED, _REPLACED = ".saving-", ".removed-", ".replaced-"


def write(folder: pathlib.Path, entries: dict) -> None:
    """Flushes every file of `folder` to the disk, then writes the manifest with `entries` (JSON). Raises OSError."""
    files = _files(folder)
    for file in files.values():
        flush(file)
    for inner, _, _ in os.walk(folder):
        flush(inner)
    listed = {name: (file.stat().st_size, _digest(file)) for name, file in files.items()}
    body = json.dumps({**entries, "format": FORMAT, "files": listed}, indent=1, sort_keys=True).encode()
    (folder / MANIFEST).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    flush(folder / MANIFEST)
    flush(folder)


def read(folder: pathlib.Path) -> dict:
    """The entries of the manifest. Raises ValueError that says what is wrong with it."""
    try:
        digest, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(f"{MANIFEST} has other contents than were saved")
    entries = json.loads(body)
    if entries["format"] != FORMAT:
        raise ValueError(f"{MANIFEST} is of format {entries['format']}; this version reads {FORMAT}")
    return entries


def damage(folder: pathlib.Path) -> str | None:
    """The first thing wrong with `folder`, naming the file; None if every byte is what the manifest says."""
    try:
        listed, found = read(folder)["files"], _files(folder)
        for name in sorted(listed.keys() ^ found.keys()):
            return f"{name} is missing" if name in listed else f"{name} was not part of what was saved"
        for name, (size, digest) in listed.items():
            if (actual := found[name].stat().st_size) != size:
                return f"{name} has {actual} bytes, not {size}"
            if _digest(found[name]) != digest:
                return f"{name} has other contents than were saved"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def hidden(folder: pathlib.Path, name: str | int) -> pathlib.Path:
    """Where to fill what will be `folder / name`."""
    return folder / f"{_SAVING}{name}"


def publish(filled: pathlib.Path, path: pathlib.Path) -> None:
    """Renames `filled` to `path`, in place of what is there. Raises OSError."""
    replaced = path.with_name(f"{_REPLACED}{path.name}")
    if path.exists():
        path.rename(replaced)
    filled.rename(path)
    flush(path.parent)
    _delete(replaced)


def remove(path: pathlib.Path) -> None:
    """Deletes a folder, never leaving half of it under its name. Raises OSError."""
    removed = path.with_name(f"{_REMOVED}{path.name}")
    _delete(removed)
    _delete(path.rename(removed))


def published(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """What is in `folder` by name, hidden things left out; what a killed `publish` was replacing is still there."""
    names = os.listdir(folder) if folder.is_dir() else []
    found = {name.removeprefix(_REPLACED): folder / name for name in names if name.startswith(_REPLACED)}
    return found | {name: folder / name for name in names if not name.startswith(".")}


def tidy(folder: pathlib.Path) -> None:
    """Deletes what a killed process left; what it was about to replace goes back to its place. Raises OSError."""
    for path in folder.glob(".*-*"):
        if path.name.startswith(_REPLACED) and not (place := folder / path.name.removeprefix(_REPLACED)).exists():
            path.rename(place)
        elif path.name.startswith((_SAVING, _REMOVED, _REPLACED)):
            _delete(path)


def _delete(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every file below `folder` by its relative name, but for the manifest."""
    walked = (pathlib.Path(inner) / name for inner, _, names in os.walk(folder) for name in names)
    return {str(file.relative_to(folder)): file for file in walked if file != folder / MANIFEST}


def _digest(file: pathlib.Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
