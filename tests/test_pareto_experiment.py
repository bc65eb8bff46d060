"""experiments/pareto.py as a user runs it: two methods, one report and one picture, and a refusal."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "training.num_epochs=2", "training.log_every=8", "training.validate_every=2", "training.validate_with.num_steps=2",
    "model.hidden=(16,)", "evaluation.num_examples=40", "evaluation.attacks.PGD-50x3.num_steps=2",
]  # fmt: skip


def call(*args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, "experiments/pareto.py", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_two_methods_in_one_report_and_picture(tmp_path):
    sweeps = ["--sweep=loss.kappa.end=0.5,0", "--sweep=loss.tau=0.2,0.9"]
    changes = [f"--config.{field}" for field in TINY]
    done = call("--methods=ibp,sabr", *sweeps, "--seeds=1", *changes, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "report" / "table.md").read_text()
    assert all(f"\n| {name} |" in table for name in ("IBP κ=0.5", "IBP κ=0", "SABR τ=0.2", "SABR τ=0.9"))
    assert "certified accuracy (%)" in (tmp_path / "report" / "pareto.svg").read_text()
    assert f"picture  {tmp_path / 'report' / 'pareto.svg'}" in done.stdout


def test_another_method_or_field_is_refused_in_one_line(tmp_path):
    known = "ibp, crown_ibp, sabr, mtl_ibp, cc_ibp, exp_ibp"
    lines = {
        "--methods=trades": f"--methods: must be of {known}, without --config: each has its own",
        "--sweep=loss.beta=1": "--sweep=loss.beta=1: is of none of the methods: theirs are loss.kappa.end",
    }
    for flag, line in lines.items():
        done = call("--methods=ibp", flag, "--quiet", f"--workdir={tmp_path}")
        assert (done.returncode, done.stderr.splitlines()) == (2, [f"error: {line}"])
