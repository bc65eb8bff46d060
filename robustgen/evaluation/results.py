"""What a run leaves behind: its columns, curves and examples, in one file that is replaced whole or not at all."""

import csv
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from robustgen.core import Key, LogitsFn
from robustgen.evaluation.columns import Columns, Evaluator, run_batches
from robustgen.evaluation.curves import Curve
from robustgen.files import replace_file

FILE = "runs.npz"


class ResultsError(ValueError):
    """A file of results that cannot be read."""


class Examples(NamedTuple):
    """Chosen examples before and after `attack`: kind [M] (worst, median, surviving), x, x_adv [M, ...], others [M]."""

    attack: str
    kind: np.ndarray
    index: np.ndarray
    label: np.ndarray
    x: np.ndarray
    x_adv: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    prediction_adv: np.ndarray
    confidence_adv: np.ndarray


class Run(NamedTuple):
    """One trained net and what was measured of it.

    method and knobs   what it is: runs that share both differ in `seed` and make one row of a table
    columns            of the test split, from `columns`; None where the run failed, with `failure` saying why
    train_columns      of training examples, for the gaps; or None
    history            "epoch" [T], any of train_clean, train_robust, validation_clean, validation_robust [T] in 0..1
    curve, examples    from `curve` and `adversarial_examples`; or None
    """

    method: str
    seed: int
    knobs: dict[str, float]
    columns: Columns | None
    train_columns: Columns | None = None
    history: dict[str, np.ndarray] | None = None
    curve: Curve | None = None
    examples: Examples | None = None
    failure: str = ""


def adversarial_examples(
    evaluator: Evaluator,
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    columns: Columns,
    *,
    attack: str,
    key: Key,
    batch_size: int,
    seed: int,
    per_kind: int = 3,
) -> Examples:
    """Attacks again the examples that `pick` chooses; same key, same `x_adv`. x, y, columns: of one net, in order."""
    rows, kind = pick(columns, attack=attack, seed=seed, per_kind=per_kind)
    batches = run_batches(evaluator, net, x[rows], y[rows], columns["index"][rows], key=key, batch_size=batch_size)
    found = [batch for _, batch in batches]
    after = {name: np.concatenate([b[f"{name}:{attack}"] for b in found]) for name in _JUDGED + ("x_adv",)}
    before = [columns[name][rows] for name in _JUDGED]
    return Examples(
        attack, kind, columns["index"][rows], np.asarray(y)[rows], np.asarray(x)[rows], after["x_adv"],
        *before, after["prediction"], after["confidence"],
    )  # fmt: skip


def pick(columns: Columns, *, attack: str, seed: int, per_kind: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows [M], kind [M]) among the examples that are right when clean, none twice and none by hand: those with the
    worst margin under `attack`, those nearest to its median, and a draw by `seed` of those that hold."""
    right = np.flatnonzero(columns["clean"])
    margin = columns[f"margin:{attack}"][right]
    worst = right[np.argsort(margin, kind="stable")]
    median = right[np.argsort(np.abs(margin - np.median(margin)), kind="stable")] if len(right) else right
    held = np.random.default_rng(seed).permutation(np.flatnonzero(columns[f"robust:{attack}"]))
    rows, kinds = [], []
    for kind, candidates in (("worst", worst), ("median", median), ("surviving", held)):
        fresh = [row for row in candidates if row not in rows][:per_kind]
        rows += fresh
        kinds += [kind] * len(fresh)
    return np.asarray(rows, int), np.asarray(kinds, dtype="U9")


def save(folder: pathlib.Path, runs: Sequence[Run]) -> pathlib.Path:
    """Writes all runs to `folder/runs.npz`; equal runs give equal bytes. No pickle.

    A SHA-256 of the archive follows it: `np.load` reads past that, and `load` refuses a file with one bit changed.
    """
    arrays, records = {}, []
    for i, run in enumerate(runs):
        groups = {name: _as_dict(getattr(run, name)) for name in _GROUPS}
        present = {name: group for name, group in groups.items() if group is not None}
        arrays |= {f"{i}/{name}/{key}": np.asarray(v) for name, group in present.items() for key, v in group.items()}
        records.append({name: getattr(run, name) for name in _SCALARS} | {"groups": list(present)})
    arrays["records"] = np.frombuffer(json.dumps(records, sort_keys=True).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    return replace_file(pathlib.Path(folder) / FILE, content + hashlib.sha256(content).digest())


def load(folder: pathlib.Path) -> list[Run]:
    """The runs that `save` wrote. Raises `ResultsError` where the file is damaged or not one of ours."""
    path = pathlib.Path(folder) / FILE
    data = path.read_bytes()
    content, digest = data[:-32], data[-32:]
    if hashlib.sha256(content).digest() != digest:
        raise ResultsError(f"{path} is damaged, or no file of results: evaluate again")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    records = json.loads(arrays["records"].tobytes())
    return [_run(record, _under(arrays, f"{i}/")) for i, record in enumerate(records)]


def results_csv(runs: Sequence[Run]) -> str:
    """One line an example, split and run; columns that a run lacks are empty."""
    tables = [(run, split, columns) for run in runs for split, columns in _splits(run)]
    header = list(dict.fromkeys(name for *_, columns in tables for name in columns))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "knobs", "seed", "split", *header])
    for run, split, columns in tables:
        knobs = ";".join(f"{name}={value:g}" for name, value in run.knobs.items())
        empty = [""] * len(columns["index"])
        texts = [_texts(columns[name]) if name in columns else empty for name in header]
        writer.writerows([run.method, knobs, run.seed, split, *row] for row in zip(*texts, strict=True))
    return out.getvalue()


_JUDGED = ("prediction", "confidence")
_GROUPS = ("columns", "train_columns", "history", "curve", "examples")
_SCALARS = ("method", "seed", "knobs", "failure")


def _as_dict(group: Any) -> dict | None:
    fields = group._asdict() if hasattr(group, "_asdict") else group
    return None if fields is None else {name: value for name, value in fields.items() if value is not None}


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _run(record: dict, arrays: dict[str, np.ndarray]) -> Run:
    groups: dict[str, Any] = {name: _under(arrays, f"{name}/") for name in record["groups"]}
    if "curve" in groups:
        groups["curve"] = Curve(**{"certified": None, **groups["curve"]})
    if "examples" in groups:
        groups["examples"] = Examples(**groups["examples"] | {"attack": str(groups["examples"]["attack"])})
    return Run(**{name: record[name] for name in _SCALARS}, **{name: groups.get(name) for name in _GROUPS})


def _splits(run: Run) -> Iterator[tuple[str, Columns]]:
    for split, columns in (("test", run.columns), ("train", run.train_columns)):
        if columns is not None:
            yield split, columns


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        return [f"{value:.7g}" for value in values.tolist()]
    return [str(value) for value in values.astype(int).tolist()]
