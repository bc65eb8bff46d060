"""experiments/certify.py as a user runs it: a small net, a ladder, stopped and taken up."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from robustgen import bracket
from robustgen.records import JournalError

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = ["--config=configs/digits_ibp.py", "--config.training.num_epochs=2", "--config.model.hidden=(16,)"]


def run(script: str, *flags: str) -> str:
    command = [sys.executable, f"experiments/{script}.py", *flags]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("certify")
    run("train", *FLAGS, f"--workdir={workdir}")
    return workdir


def test_table_picture_and_a_second_call_from_records(folder):
    flags = [*FLAGS, f"--workdir={folder}", "--num_examples=30", "--batch_size=10", "--radii=0.02,0.01"]
    first = run("certify", *flags)
    out = folder / "bracket"
    records = (out / "bracket.records").read_bytes()
    assert (out / "table.md").read_text().splitlines()[0] in first
    assert (out / "bracket.svg").read_text().startswith("<")
    examples = np.genfromtxt(out / "examples.csv", delimiter=",", names=True, dtype=None, encoding=None)
    assert len(examples) == 60
    assert not np.any((examples["broken_by"] != "") & (examples["proved_by"] != ""))

    (out / "bracket.records").write_bytes(records[: len(records) // 2])  # as kill -9 would leave it
    table = (out / "examples.csv").read_bytes()
    (out / "examples.csv").unlink()
    run("certify", *flags)
    assert (out / "examples.csv").read_bytes() == table


def test_a_contradiction_is_loud():
    proved, broken = np.array([-1, 2]), np.array([0, 1])
    with pytest.raises(bracket.ContradictionError, match="1 examples .* eps 0.1, the first is 1: by IBP and by PGD"):
        bracket._no_contradiction(proved, broken, ["clean", "PGD", "IBP"], 0.1)


def test_other_work_is_refused(folder):
    flags = [*FLAGS, f"--workdir={folder}", "--num_examples=20", "--batch_size=10", "--radii=0.02,0.01"]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("certify", *flags)
    assert failed.value.returncode == 2 and len(failed.value.stderr.strip().splitlines()[-1]) < 400
    assert issubclass(JournalError, ValueError)
