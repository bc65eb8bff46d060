"""From folders that were measured to the sides of a comparison."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from robustgen.evaluation import metrics, results
from robustgen.evaluation.columns import Columns, names
from robustgen.evaluation.comparison import ComparisonError, Side
from robustgen.evaluation.metrics import Outcome
from robustgen.evaluation.summary import summarize

_OUTCOMES = {"clean": metrics.clean, "robust": metrics.robust, "certified": metrics.certified}
_OUTCOMES_OF = {"robust": metrics.robust_to, "certified": metrics.certified_by}


class Method(NamedTuple):
    """One method at one setting: the columns of its `runs`, one a seed."""

    name: str
    runs: list[Columns]


def methods(folders: list[pathlib.Path]) -> list[Method]:
    """The rows of each FOLDER/report: runs that share method and knobs are one. The folder's name goes before a row's
    where rows would be named alike.

    Raises `ComparisonError` where a folder was not measured or has nothing to compare, `ResultsError` where damaged.
    """
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise ComparisonError(f"{twice[0]} is listed twice")
    found = [(folder, row) for folder in folders for row in _rows(folder)]
    for name_of in (lambda folder, row: row.label, lambda folder, row: f"{folder.name}: {row.label}"):
        named = [name_of(folder, row) for folder, row in found]
        if len(set(named)) == len(named):
            break
    else:
        named = [f"{folder}: {row.label}" for folder, row in found]
    return [Method(name, [run.columns for run in row.runs]) for name, (_, row) in zip(named, found, strict=True)]


def outcome_named(text: str) -> Outcome:
    """The outcome of a name: clean, robust, certified, robust:ATTACK, certified:CERTIFIER. Raises `ComparisonError`."""
    kind, _, name = text.partition(":")
    if text in _OUTCOMES:
        return _OUTCOMES[text]
    if kind in _OUTCOMES_OF and name:
        return _OUTCOMES_OF[kind](name)
    raise ComparisonError(f"{text!r} is no outcome: clean, robust, certified, robust:ATTACK or certified:CERTIFIER")


def nets(found: Sequence[Method], outcome: str) -> list[Side]:
    """A side a method.

    Raises `ComparisonError` where "robust" or "certified" would mean other attacks or certifiers for one than another.
    """
    for kind, words in (("robust", "attacks"), ("certified", "certifiers")):
        sets = {method.name: sorted(names(method.runs[0], kind)) for method in found}
        if outcome == kind and len({tuple(listed) for listed in sets.values()}) > 1:
            listed = "; ".join(f"{name}: {', '.join(of) or 'none'}" for name, of in sets.items())
            raise ComparisonError(f"{outcome} would not mean the same, with different {words} ({listed})")
    return [Side(method.name, method.runs, outcome_named(outcome)) for method in found]


def attacks(method: Method) -> list[Side]:
    """A side an attack: what `method` withstands of each. Higher is the weaker attack."""
    return [Side(name, method.runs, metrics.robust_to(name)) for name in names(method.runs[0], "robust")]


def _rows(folder: pathlib.Path) -> list:
    try:
        return summarize(results.load(folder / "report")).rows
    except FileNotFoundError as error:
        raise ComparisonError(f"{folder} was not measured (no report/{results.FILE}): run evaluate.py first") from error
    except results.ResultsError:
        raise
    except ValueError as error:
        raise ComparisonError(f"{folder}: {error}") from error
