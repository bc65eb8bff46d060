"""experiments/smoothing.py as a user runs it, on a tiny net; killed and resumed."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
ENV = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
EXAMPLES = "--config.evaluation.num_examples"
TINY = [
    "--config.training.num_epochs=10", "--config.model.hidden=(32,)", "--config.training.validate_with.num_steps=2",
    f"{EXAMPLES}=60",
]  # fmt: skip
FILES = ("examples.csv", "table.md", "curve.csv", "curve.svg", "votes.journal")


def command(config, folder, *flags):
    config = f"--config=configs/{config}.py"
    return [sys.executable, "experiments/smoothing.py", config, *TINY, f"--workdir={folder}", *flags]


def finished(*args):
    done = subprocess.run(command(*args), cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    said = finished("digits_gaussian", folder, "--num_samples=15000")
    return folder / "smoothing_0.25", said


def test_the_table_is_what_the_examples_say(whole):
    folder, said = whole
    examples = rows(folder / "examples.csv")
    assert len(examples) == 60
    held = np.asarray([float(r["radius"]) if r["certified_class"] == r["label"] else -1 for r in examples])
    curve = rows(folder / "curve.csv")
    assert [float(r["radius"]) for r in curve] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    for row in curve:
        share = np.mean(held >= float(row["radius"]))
        assert float(row["certified"]) == share and float(row["at_least"]) <= share
        assert float(row["lower"]) <= share <= float(row["upper"]) and row["n"] == "60"
    assert float(curve[0]["certified"]) > 0.7 > 0.1 >= float(curve[4]["certified"])  # 3.6 sigma is below 1
    cell = (folder / "table.md").read_text().splitlines()[2].split(" | ")
    assert cell[:2] == ["gaussian", "0.25"] and cell[10].startswith(f"{np.mean(np.maximum(held, 0)):.3f} [")
    assert (folder / "table.md").read_text() in said and (folder / "curve.svg").read_text().count("<svg") == 1


def test_killed_while_voting_it_resumes_to_the_same_files(whole, tmp_path):
    running = subprocess.Popen(
        command("digits_gaussian", tmp_path, "--num_samples=15000"), cwd=ROOT, env=ENV,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = tmp_path / "smoothing_0.25" / "votes.journal"
    until = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 4000) and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    held = journal.stat().st_size
    assert 4000 < held < (whole[0] / "votes.journal").stat().st_size, "it was to be killed in the middle"
    finished("digits_gaussian", tmp_path, "--num_samples=15000")
    for name in FILES:
        assert (tmp_path / "smoothing_0.25" / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_other_votes_are_refused_and_other_folders_shown_beside(whole):
    args = ("digits_gaussian", whole[0].parent)
    done = subprocess.run(command(*args, "--num_samples=10"), cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2 and "other num_samples" in done.stderr.splitlines()[-1]
    finished(*args, "--sigma=0.5", "--num_samples=500", f"--beside={whole[0]}", "--radii=0,1.5")
    lines = (whole[0].parent / "smoothing_0.5" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["0.5", "0.25"] and "r=1.5" in lines[0]
    assert "gaussian σ=0.5" in (whole[0].parent / "smoothing_0.5" / "curve.svg").read_text()


@pytest.mark.parametrize(
    ("config", "flag", "line"),
    [
        ("digits_standard", "--alpha=0.01", "--sigma: is needed"),
        ("digits_gaussian", "--radii=0,x", "--radii: takes numbers"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, config, flag, line):
    args = command(config, tmp_path, flag)
    done = subprocess.run(args, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and line in done.stderr
