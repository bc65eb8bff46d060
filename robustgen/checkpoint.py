"""Checkpoints that are whole or refused: orbax writes the arrays, a hash manifest says that they are what was saved.

    save(folder, step, state, meta)       a new folder `folder/<step>`, then old steps are pruned
    restore(folder, like)                 the newest undamaged step, placed as `like` is; None where there is none yet
    load(folder)                          the same as host arrays by leaf name, for code that has no `like`

Checkpoint formats do not notice a flipped bit: they hand back wrong numbers. So each step folder holds `MANIFEST`: the
SHA-256 and size of every file, the shape and dtype of every leaf, and the caller's `meta`, under a hash of its own. A
step is written in a hidden folder, flushed to the disk, and appears under its number by one rename, so a kill at any
moment leaves either the whole step or none of it. The hashes tell damage, not forgery.

The folder needs a file system where a rename is atomic, and one run at a time that writes to it.
"""

import contextlib
import functools
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen import log, manifest
from robustgen.core import PyTree
from robustgen.knobs import Count, CountOrZero, checked

Folder = str | os.PathLike
ARRAYS = "arrays"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none of those that exist can be used. The message is fit to print."""


class Loaded(NamedTuple):
    """What was found: the step, host arrays by leaf name (`.params.dense.kernel`) or a placed pytree, and `meta`."""

    step: int
    state: PyTree
    meta: dict


@checked
def save(folder: Folder, step: CountOrZero, state: PyTree, meta: dict | None = None, *, keep: Count = 3) -> None:
    """Writes `state` (arrays of any sharding, no typed keys) and `meta` (JSON) as step `step`; returns when it is safe.

    A step of that number is replaced. Of the steps up to this one the newest `keep` stay; a later step stays if it is
    undamaged. On several processes all must call it, at the same step, and see the same folder.
    Raises CheckpointError where the disk is full or not writable: earlier steps and `state` are as they were.
    """
    folder = pathlib.Path(folder).absolute()
    leaves = _named(state)
    step = int(step)
    hidden = manifest.hidden(folder, step)
    try:
        if _first():
            folder.mkdir(parents=True, exist_ok=True)
            manifest.tidy(folder)
            _check_space(folder, leaves)
            hidden.mkdir()
        _barrier(f"robustgen save {step}: begin")
        stored = {name: leaf for name, leaf in leaves.items() if leaf.size}  # orbax refuses arrays of no elements
        with _quiet_orbax() as (orbax, checkpointer):
            checkpointer.save(hidden / ARRAYS, args=orbax.args.PyTreeSave(stored))
        if _first():
            shapes = {name: (np.dtype(leaf.dtype).name, leaf.shape) for name, leaf in leaves.items()}
            manifest.write(hidden, {"step": step, "leaves": shapes, "meta": meta or {}})
            manifest.publish(hidden, folder / str(step))
            _prune(folder, step, keep)
        _barrier(f"robustgen save {step}: end")
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise CheckpointError(f"{folder}: step {step} could not be saved: {_one_line(error)}") from error

def restore(folder: Folder, like: PyTree, step: int | None = None) -> Loaded | None:
    """The newest undamaged step, or `step`, with the structure, shapes, dtypes and placement of `like`.

    Leaves of `like` that are jax arrays, or `ShapeDtypeStruct`s with a sharding, are placed likewise on whatever
    devices there are now; others come back as NumPy arrays. Raises as `load` does, and CheckpointError that names each
    leaf where the structure differs.
    """
    loaded = load(folder, step)
    if loaded is None:
        return None
    wanted = _named(like)
    if different := _differences(loaded.state, wanted):
        where = f"{pathlib.Path(folder).absolute()}/{loaded.step}"
        raise CheckpointError("\n".join([f"{where} holds another model or optimizer than this run:"] + different))
    leaves = [_place(loaded.state[name], leaf) for name, leaf in wanted.items()]
    return loaded._replace(state=jax.tree.unflatten(jax.tree.structure(like), leaves))


def load(folder: Folder, step: int | None = None) -> Loaded | None:
    """The newest undamaged step, or `step`, as {leaf name: NumPy array}; None where nothing was saved yet.

    A damaged step is told in one line that names the file and passed over. Raises CheckpointError where all are
    damaged, or where `step` is, or is not there: never a silent start from scratch.
    """
    folder = pathlib.Path(folder).absolute()
    found = steps(folder)
    if step is not None and step not in found:
        raise CheckpointError(f"{folder}: there is no step {step}; found {found or 'none'}")
    for candidate in [step] if step is not None else reversed(found):
        problem = damage(folder, candidate)
        if problem is None:
            return _read(_paths(folder)[candidate])
        if step is not None:
            raise CheckpointError(f"{folder}/{candidate} is damaged: {problem}")
        log.warn(f"{folder}/{candidate} is damaged and not used: {problem}")
    if found:
        raise CheckpointError(f"{folder}: every step is damaged {found}; bring back a copy, or use an empty folder")
    return None


def steps(folder: Folder) -> list[int]:
    """Numbers of the steps in `folder`, ascending, damaged ones included."""
    return sorted(_paths(folder))


def _paths(folder: Folder) -> dict[int, pathlib.Path]:
    found = manifest.published(pathlib.Path(folder).absolute())
    return {int(name): path for name, path in found.items() if name.isdecimal() and name == str(int(name))}


def latest(folder: Folder) -> int | None:
    """The newest undamaged step; None where there is none."""
    return next((step for step in reversed(steps(folder)) if damage(folder, step) is None), None)


def discard_after(folder: Folder, step: int) -> None:
    """Removes the steps later than `step`: what a run that goes back to `step` calls, so that they are not resumed."""
    for later in [path for found, path in _paths(folder).items() if found > step]:
        manifest.remove(later)


def damage(folder: Folder, step: int) -> str | None:
    """What is wrong with a step, naming the file; None if it is exactly what was saved."""
    path = _paths(folder)[step]
    if problem := manifest.damage(path):
        return problem
    written_as = manifest.read(path)["step"]
    return None if written_as == step else f"it was saved as step {written_as}"


def _read(path: pathlib.Path) -> Loaded:
    entries = manifest.read(path)
    arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in entries["leaves"].items() if 0 in shape}
    stored = [name for name in entries["leaves"] if name not in arrays]
    with _quiet_orbax() as (orbax, checkpointer):
        as_numpy = {name: orbax.RestoreArgs(restore_type=np.ndarray) for name in stored}
        arrays |= checkpointer.restore(path / ARRAYS, args=orbax.args.PyTreeRestore(restore_args=as_numpy))
    return Loaded(entries["step"], {name: arrays[name] for name in entries["leaves"]}, entries["meta"])


def _prune(folder: pathlib.Path, newest: int, keep: int) -> None:
    found = steps(folder)
    old = [step for step in found if step <= newest][:-keep]
    for step in old + [step for step in found if step > newest and damage(folder, step)]:
        manifest.remove(folder / str(step))


def _check_space(folder: pathlib.Path, leaves: dict[str, Any]) -> None:
    needed, free = sum(leaf.nbytes for leaf in leaves.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, each with a shape and a dtype."""
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    named = {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in named.items()}
    for name, leaf in named.items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a typed key; a checkpoint holds its jax.random.key_data")
    return named


def _differences(saved: dict, wanted: dict, most: int = 8) -> list[str]:
    """One line per leaf that is missing, extra or of another shape or dtype."""
    saved, wanted = ({name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in d.items()} for d in (saved, wanted))
    names = [name for name in sorted(wanted.keys() | saved.keys()) if wanted.get(name) != saved.get(name)]
    lines = [f"  {name}: saved {saved.get(name, 'no')}, this run has {wanted.get(name, 'none')}" for name in names]
    return lines[:most] + ([f"  ... and {len(lines) - most} more"] if len(lines) > most else [])


def _place(array: np.ndarray, like: Any) -> Any:
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        return array
    if isinstance(like, jax.Array) and not like.committed:
        return jnp.array(array)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


@functools.cache
def _checkpointer() -> Any:
    import orbax.checkpoint as orbax  # takes 0.5 s, which commands that touch no checkpoint should not pay

    return orbax, orbax.Checkpointer(orbax.PyTreeCheckpointHandler())


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[tuple[Any, Any]]:
    """Without orbax's log: versions, that one process has nothing to merge, that arrays come back unsharded."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield _checkpointer()
    finally:
        logger.setLevel(level)


def _first() -> bool:
    return jax.process_index() == 0


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
