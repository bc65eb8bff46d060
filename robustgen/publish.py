"""From runs to what people read: the report folder, and the table on the console."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from robustgen import log
from robustgen.evaluation import report, results, tables
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import summarize
from robustgen.evaluation.validity.finding import Finding, findings_table


def publish(
    runs: Sequence[Run], folder: pathlib.Path, *, title: str, eps: float, records: Sequence[pathlib.Path] = (),
    findings: Sequence[Finding] = (),
) -> None:  # fmt: skip
    """Writes FOLDER/report and prints its table, and that of `findings`, if any, on the evaluation's validity.

    `eps` is the radius of the tables; `records` the folders with run.json, config.json and diff.txt of what was run,
    where they are not FOLDER's own: the first speaks for all.
    """
    records = records or [folder]
    made = json.loads((records[0] / "run.json").read_text())
    results.save(folder / "report", runs)
    path = report.write(
        folder / "report", runs, title=title, facts=_facts(made), eps=eps, findings=findings,
        config_text=_joined(records, "config.json"), diff_text=_joined(records, "diff.txt"),
    )  # fmt: skip
    log.say(tables.console(summarize(runs)))
    if findings:
        log.say(f"\n{tables.console_table(findings_table(findings))}")
    log.say(f"\nreport   {path}   (also table.md, table.tex, results.csv, runs.npz)")


def _facts(made: Mapping[str, Any]) -> dict[str, str]:
    """The record of a run in the words of the report's header."""
    git, device = made["git"], made["device"]
    commit = "not in a checkout" if git is None else f"{git['commit'][:10]}{' with changes' if git['dirty'] else ''}"
    return {
        "run": made["fingerprint"],
        "date": made["date"],
        "commit": commit,
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version),
        "hardware": f"{device['count']} x {device['kind']}, {device['cores']} CPU cores",
        "data": f"sha256 {made['data_hash'][:16]}",
        "command": made["command"],
    }


def _joined(records: Sequence[pathlib.Path], name: str) -> str:
    texts = {folder.name: (folder / name).read_text() for folder in records}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n".join(f"{folder}\n{text}" for folder, text in texts.items() if text.strip())
