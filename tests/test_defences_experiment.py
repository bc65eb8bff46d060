"""experiments/defences.py as a user runs it, on a tiny net."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--config.training.num_epochs=12", "--config.model.hidden=(32,)", "--config.training.validate_with.num_steps=2",
    "--config.evaluation.num_examples=200", "--num_steps=10", "--num_draws=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """call(*flags): one run of the script, in the same folder each time."""
    folder = tmp_path_factory.mktemp("defences")

    def run(*flags):
        env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
        command = [sys.executable, "experiments/defences.py", "--config=configs/digits_standard.py", *TINY, *flags]
        done = subprocess.run([*command, f"--workdir={folder}"], cwd=ROOT, env=env, capture_output=True, text=True)
        return done, folder / "defences.md"

    return run


def test_what_the_naive_attack_leaves_falls_to_the_adaptive_one(call):
    done, file = call("--rows=bit depth 3")
    assert done.returncode == 0, done.stderr
    head, _, row = file.read_text().splitlines()
    assert [cell.strip() for cell in head.split("|")] == ["defence", "clean", "naive", "transfer", "adaptive"]
    assert row.startswith("bit depth 3 ")
    clean, naive, transfer, adaptive = (float(cell.split()[0]) for cell in row.split("|")[1:])
    assert clean > 80 and naive <= clean and adaptive < naive - 20 and adaptive <= transfer + 5, row


def test_an_unknown_row_is_refused_in_one_line(call):
    done, _ = call("--rows=nothing")
    assert done.returncode == 2 and "knows no 'nothing': one of none, bit depth 2" in done.stderr.splitlines()[-1]
