"""experiments/compare.py as a user runs it, on results written by hand."""

import csv
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from robustgen.evaluation import results, sides
from robustgen.evaluation.comparison import ComparisonError
from robustgen.evaluation.intervals import mcnemar, paired_difference
from robustgen.evaluation.results import Run

ROOT = pathlib.Path(__file__).parents[1]
N = 300


def columns(robust, square=0.95, seed=0, n=N, certifier="IBP"):
    draw = np.random.default_rng([seed, int(1000 * robust)]).random((3, n))
    right = draw[0] < 0.97
    return {
        "index": np.arange(n), "label": np.arange(n) % 10, "clean": right,
        "robust:PGD": right & (draw[1] < robust), "robust:Square": right & (draw[1] < square),
        f"certified:{certifier}": right & (draw[1] < robust / 2), f"falsified:{certifier}": np.zeros(n, bool),
        "prediction": np.arange(n) % 10,
    }  # fmt: skip


def measured(folder, *runs):
    results.save(folder / "report", runs)
    return folder


@pytest.fixture
def folders(tmp_path):
    one, two = Run("TRADES", 0, {}, columns(0.8)), Run("TRADES", 1, {"beta": 3.0}, columns(0.6))
    return measured(tmp_path / "a", one), measured(tmp_path / "b", two)


def call(*args):
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, "experiments/compare.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_two_nets_from_the_command_line(folders):
    done = call(f"--workdirs={folders[0]},{folders[1]}", "--outcomes=robust,robust:Square")
    assert done.returncode == 0, done.stderr
    (row,) = rows(folders[0] / "report" / "comparison_robust.csv")
    a, b = (results.load(folder / "report")[0].columns["robust:PGD"] for folder in folders)
    assert float(row["p"]) == pytest.approx(mcnemar(a, b), rel=1e-8) and row["test"] == "McNemar, exact"
    assert float(row["difference"]) == pytest.approx(a.mean() - b.mean(), abs=1e-8) and int(row["n"]) == N
    text = (folders[0] / "report" / "comparison.md").read_text()
    assert "a: TRADES" in done.stdout and "a: TRADES" in text and "**robust_Square" not in text
    assert (folders[0] / "report" / "comparison_robust_Square.csv").exists() and text.count("all pairs") == 2


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--workdirs={0},{0}/none", "run evaluate.py first"), ("--workdirz=a", "Did you mean: workdirs")],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(folders, flag, words):
    done = call(flag.format(folders[0]))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr


def test_methods_group_seeds_and_name_rows_apart(tmp_path):
    three = [Run("IBP", seed, {}, columns(0.7, seed=seed)) for seed in range(3)]
    folder = measured(tmp_path / "ibp", *three)
    other = measured(tmp_path / "x", *[Run("TRADES", 0, {"beta": b}, columns(0.5 + b / 10)) for b in (1.0, 2.0)])
    found = sides.methods([folder, other])
    assert [(m.name, len(m.runs)) for m in found] == [("IBP", 3), ("TRADES β=1", 1), ("TRADES β=2", 1)]
    namesake = measured(tmp_path / "there" / "ibp", three[0])
    assert [m.name for m in sides.methods([folder, namesake])] == [f"{folder}: IBP", f"{namesake}: IBP"]
    with pytest.raises(ComparisonError, match="ibp is listed twice"):
        sides.methods([folder, folder])


def test_seeds_are_the_default_where_there_are_several(tmp_path, folders):
    runs = [Run("IBP", seed, {}, columns(0.7, seed=seed)) for seed in range(3)]
    many, out = measured(tmp_path / "many", *runs), tmp_path / "out"
    done = call(f"--workdirs={folders[0]},{many}", "--outcomes=robust", f"--out={out}")
    assert done.returncode == 0, done.stderr
    (row,) = rows(out / "comparison_robust.csv")
    hits = np.stack([run.columns["robust:PGD"] for run in runs])
    one = results.load(folders[0] / "report")[0].columns["robust:PGD"]
    assert float(row["p"]) == pytest.approx(paired_difference(one, hits).p, rel=1e-8) and row["only_first"] == ""


def test_attacks_on_one_net(folders):
    (method,) = sides.methods(folders[:1])
    assert [side.name for side in sides.attacks(method)] == ["PGD", "Square"]


def test_other_attacks_and_unknown_outcomes_are_refused(tmp_path, folders):
    odd = columns(0.7)
    odd["robust:FAB"] = odd.pop("robust:Square")
    found = sides.methods([folders[0], measured(tmp_path / "odd", Run("MART", 0, {}, odd))])
    with pytest.raises(ComparisonError, match="different attacks .*MART: FAB, PGD"):
        sides.nets(found, "robust")
    assert len(sides.nets(found, "robust:PGD")) == 2
    for text in ("robust:", "sturdy", "sturdy:PGD"):
        with pytest.raises(ComparisonError, match="is no outcome"):
            sides.nets(found, text)
