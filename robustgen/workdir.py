"""The folder of a run: where it is, whose it is, and the record of what was run there."""

import json
import pathlib
import re
from typing import Any

import jax

from robustgen import checkpoint, config, log, train
from robustgen.config import app, files
from robustgen.data import source
from robustgen.data.source import DataError
from robustgen.evaluation.results import ResultsError
from robustgen.files import replace_file
from robustgen.population import Population
from robustgen.workflow import Plan, plan

ERRORS = (DataError, checkpoint.CheckpointError, train.TrainingFailed, log.LogError, ResultsError)
"""What ends an experiment in one line and exit code 2, beside what is wrong with the command line."""

_IDENTITY = "identity.json"


def folder_of(run: app.Run, suffix: str = "") -> pathlib.Path:
    """`--workdir`, else runs/NAME after the config file: NAME_ARG for configs/NAME.py:ARG, then `suffix`."""
    if run.workdir:
        return pathlib.Path(run.workdir)
    path, arg = files.split(run.path_and_arg)
    name = f"{pathlib.Path(path).stem}_{arg}" if arg else pathlib.Path(path).stem
    return pathlib.Path("runs", re.sub(r"[^\w.-]", "_", name) + suffix)


def open_run(run: app.Run, folder: pathlib.Path, members: Population | None = None) -> Plan:
    """The plan of a command line that trains in `folder`, and the record of it there. What every training begins with.

    Raises `ConfigError` where `folder` holds a run of another config, other `members` or other data: results are never
    mixed, nor overwritten. Also where it cannot be written.
    """
    made = plan(run.config)
    data = made.recipe.data
    identity = _identity(made, members)
    if jax.process_index() == 0:
        try:
            _refuse_another(folder, identity, tuple(identity))
            replace_file(folder / _IDENTITY, json.dumps(identity).encode())
            record(run, made, folder)
        except OSError as error:
            raise config.ConfigError("--workdir", f"{folder} cannot be written: {error.strerror}") from error
    sizes = "  ".join(f"{name} {len(data.load(name).y)}" for name in ("train", "validation"))
    log.note(f"run    {identity['fingerprint']} in {folder} on {jax.device_count()} x {jax.devices()[0].device_kind}")
    log.note(f"data   {data.name}  {sizes}  sha256 {identity['data'][:8]}")
    return made


def reopen_run(run: app.Run, folder: pathlib.Path) -> Plan:
    """The plan of a command line that measures what was trained in `folder`; writes nothing.

    The config may differ in its `evaluation`, and in nothing else. Raises `ConfigError`.
    """
    made = plan(run.config)
    _refuse_another(folder, _identity(made, None), ("trained", "sweep", "seeds", "data"))
    return made


def record(run: app.Run, plan: Plan, folder: pathlib.Path) -> None:
    """Writes config.json, diff.txt and run.json of this command into `folder` (see `config.record`)."""
    data_hash = source.fingerprint(plan.recipe.data, "train")
    config.record(folder, run.config, run.base, argv=run.argv, seed=plan.recipe.seed, data_hash=data_hash)


def _identity(plan: Plan, members: Population | None) -> dict[str, Any]:
    """What two commands must agree in to share a folder; `trained` is what decides the trained parameters."""
    trained = config.override(plan.config, [])
    del trained.evaluation
    return {
        "fingerprint": config.fingerprint(plan.config),
        "sweep": None if members is None else {name: v.tolist() for name, v in members.values.items()},
        "seeds": None if members is None else members.seeds.tolist(),
        "trained": config.fingerprint(trained),
        "data": source.fingerprint(plan.recipe.data, "train"),
    }


def _refuse_another(folder: pathlib.Path, identity: dict[str, Any], compared: tuple[str, ...]) -> None:
    """Compares with the folder's identity.json, where there is one; an older one may lack entries."""
    path = folder / _IDENTITY
    held = json.loads(path.read_text()) if path.exists() else {}
    other = {name for name in compared if held.get(name, identity[name]) != identity[name]}
    if other == {"data"}:
        now = identity["data"][:8]
        raise config.ConfigError("--workdir", f"{folder} was trained on other data: {held['data'][:8]}, not {now}")
    if other:
        words = {"sweep": "another sweep", "seeds": "other seeds"}
        what = " and ".join(dict.fromkeys(words.get(name, "another config") for name in compared if name in other))
        raise config.ConfigError("--workdir", f"{folder} holds a run of {what}; choose another --workdir")
