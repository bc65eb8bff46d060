"""experiments/denoised.py as a user runs it, on tiny nets."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--config.training.num_epochs=10", "--config.model.hidden=(32,)", "--config.training.validate_with.num_steps=2",
    "--config.evaluation.num_examples=20", "--num_samples=300", "--depth=3", "--width=8", "--denoiser_epochs=5",
]  # fmt: skip


def test_denoisers_are_certified_beside_the_classifier_alone(tmp_path):
    command = [sys.executable, "experiments/denoised.py", "--config=configs/digits_standard.py", "--sigma=0.4", *TINY]
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run([*command, f"--workdir={tmp_path}"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "denoised_0.4" / "table.md").read_text()
    names = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert table in done.stdout and names == ["no denoiser", "MSE", "MSE + stability"]
    for objective, metric in (("mse", "mse"), ("stability", "stability_accuracy")):
        log = (tmp_path / "denoised_0.4" / f"{objective}_3x8_5" / "metrics.jsonl").read_text()
        assert log.count("\n") == 1 and f'"{metric}"' in log and "validation_loss" in log
