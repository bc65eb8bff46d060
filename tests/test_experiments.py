"""The scripts as a user runs them, each a process of its own, from the config to the report."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "training.num_epochs=2", "training.log_every=8", "training.validate_every=1", "training.validate_with.num_steps=2",
    "model.hidden=(16,)", "evaluation.num_examples=40", "evaluation.attacks.PGD-50x3.num_steps=2",
    "evaluation.curve=()",
]  # fmt: skip
CHANGES = [f"--config.{field}" for field in TINY]
TRADES = ["--config=configs/digits_trades.py", *CHANGES, "--config.loss.attack.num_steps=2"]
REPORT = {"report.html", "table.md", "table.tex", "results.csv", "runs.npz", "run.json", "config.json", "diff.txt"}
CELL = re.compile(r"\d+\.\d(\*\*)? \[\d+\.\d, \d+\.\d\]")


def call(script: str, *args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, f"experiments/{script}.py", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def finished(script: str, *args: str) -> str:
    done = call(script, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(folder: pathlib.Path) -> list[dict[str, str]]:
    """The rows of the first table of table.md."""
    lines = (folder / "table.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    end = next((i for i, row in enumerate(rows) if len(row) < 3), len(rows))
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:end]]


def test_train_evaluate_and_evaluate_again(tmp_path):
    args = [*TRADES, "--config.evaluation.curve=(0.0, 0.1)", f"--workdir={tmp_path}"]
    assert f"trained  16 steps, in {tmp_path}" in finished("train", *args)
    assert json.loads((tmp_path / "run.json").read_text())["command"].startswith("experiments/train.py")
    said = finished("evaluate", *args, "--validity=8")
    report = tmp_path / "report"
    assert REPORT <= {path.name for path in report.iterdir()} and "Accuracy on test examples" in said
    assert all("Is this evaluation valid?" in text for text in (said, (report / "report.html").read_text()))
    (row,) = table(report)
    assert row["n"] == "40" and len([text for text in row.values() if CELL.search(text)]) == 3
    before = {name: (report / name).read_bytes() for name in ("table.md", "table.tex", "results.csv", "runs.npz")}
    with open(report / "results.csv") as file:
        assert [line["split"] for line in csv.DictReader(file)] == ["test"] * 40 + ["train"] * 40
    for name in before:
        (report / name).unlink()
    assert finished("evaluate", *args, "--validity=8") == said
    assert {name: (report / name).read_bytes() for name in before} == before
    for file, script in ((tmp_path, "train"), (report, "evaluate")):
        assert json.loads((file / "run.json").read_text())["command"].startswith(f"experiments/{script}.py")


def test_tradeoff_is_one_row_a_value(tmp_path):
    finished("tradeoff", *TRADES, "--sweep=loss.beta=0,6", "--seeds=1", f"--workdir={tmp_path}")
    rows = table(tmp_path / "report")
    assert len(rows) == 2 and all(row["n"] == "40" for row in rows)
    assert "β=0" in str(rows[0]) and "β=6" in str(rows[1])
    assert json.loads((tmp_path / "identity.json").read_text())["sweep"] == {"loss.beta": [0.0, 6.0]}


def test_quickstart_is_both_populations_in_one_report(tmp_path):
    finished("quickstart", *CHANGES, "--seeds=1", f"--workdir={tmp_path}")
    rows = table(tmp_path / "report")
    assert len(rows) == 6 and [row["method"] for row in rows].count("IBP") == 1
    assert {"trades", "ibp", "report"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("script", "args", "line"),
    [
        ("evaluate", TRADES, "trained 0 of 16 steps; run experiments/train.py with the same flags first"),
        ("tradeoff", ["--sweep=training.batch_size=64"], "--sweep=training.batch_size=64: is not of the loss"),
        ("quickstart", ["--config=configs/digits_ibp.py"], "--config: is not for quickstart.py"),
        ("train", [*TRADES, "--devices=2"], "num_devices: must be at most 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, script, args, line):
    done = call(script, *args, "--quiet", f"--workdir={tmp_path / 'none'}")
    *before, last = done.stderr.splitlines()
    assert done.returncode == 2 and last.startswith("error: ") and line in last, done.stderr
    assert len(before) == (script == "quickstart")  # its greeting comes before anything is imported
