"""The record of a run: what was run, with what, on what. Three files that are written whole or not at all."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

import fiddle as fdl
import jax

from robustgen.config.diffing import diff
from robustgen.config.dumping import fingerprint, to_json
from robustgen.files import replace_file

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "robustgen")


def record(
    workdir: str | os.PathLike,
    config: fdl.Config,
    base: fdl.Config,
    *,
    argv: Sequence[str],
    seed: int,
    data_hash: str | None,
) -> dict[str, Any]:
    """Writes config.json (resolved, `dumping.from_json` reads it), diff.txt (against the file's `base`) and run.json
    (versions, device, commit, data hash, seed, command line, date in UTC) into `workdir`; returns run.json's contents.

    Touches the device, to name it. Raises `OSError` where the folder cannot be written.
    """
    run = {
        "fingerprint": fingerprint(config),
        "seed": seed,
        "data_hash": data_hash,
        "command": shlex.join(argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git_state(pathlib.Path(__file__).parent),
        "versions": versions(),
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "cores": os.cpu_count(),
        },
    }
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "config.json", _lines(json.dumps(to_json(config), indent=2, allow_nan=False)))
    replace_file(folder / "diff.txt", _lines(*diff(base, config)))
    replace_file(folder / "run.json", _lines(json.dumps(run, indent=2, allow_nan=False)))
    return run


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the numbers; None for what is not installed as a package."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def git_state(folder: pathlib.Path) -> dict[str, Any] | None:
    """{"commit": hex, "dirty": whether tracked files were changed}; None outside a checkout or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: pathlib.Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
