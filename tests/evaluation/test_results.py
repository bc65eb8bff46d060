"""Runs come back from disk as they were, or are refused; examples are chosen by rule."""

import csv
import io

import jax
import numpy as np
import pytest

from robustgen.evaluation.columns import columns, evaluator
from robustgen.evaluation.results import (
    ResultsError,
    Run,
    adversarial_examples,
    load,
    pick,
    results_csv,
    save,
)

from .conftest import noise, strongest
from .synthetic import made_columns, made_runs


def test_saved_and_loaded(tmp_path):
    runs = [*made_runs(2), Run("PGD-AT", 1, {}, None, failure="loss not finite at step 7")]
    path = save(tmp_path, runs)
    first = path.read_bytes()
    back = load(tmp_path)
    assert jax.tree.structure(back) == jax.tree.structure(runs)
    jax.tree.map(np.testing.assert_array_equal, back, runs)
    assert back[0].columns["clean"].dtype == bool and back[0].knobs == {"beta": 0.0}
    assert save(tmp_path, back).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["runs.npz"]  # nothing partial left


def test_damage_is_refused(tmp_path):
    content = save(tmp_path, made_runs(1)).read_bytes()
    draw = np.random.default_rng(0)
    for at in draw.integers(0, len(content), 40):
        flipped = bytearray(content)
        flipped[at] ^= 1 << draw.integers(8)
        (tmp_path / "runs.npz").write_bytes(flipped)
        with pytest.raises(ResultsError, match="runs.npz is damaged"):
            load(tmp_path)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "runs.npz").write_bytes(content[:length])
        with pytest.raises(ResultsError, match="runs.npz is damaged"):
            load(tmp_path)
    (tmp_path / "runs.npz").write_bytes(content)
    with np.load(tmp_path / "runs.npz", allow_pickle=False) as archive:  # others can read it without us
        assert archive["0/columns/clean"].dtype == bool


def test_a_pickle_is_not_opened(tmp_path):
    np.savez(tmp_path / "runs.npz", records=np.array([{"method": "x"}], dtype=object))
    with pytest.raises(ResultsError):
        load(tmp_path)


def test_csv_has_a_row_for_each_example_and_run():
    runs = made_runs(1)
    rows = list(csv.DictReader(io.StringIO(results_csv(runs))))
    assert len(rows) == 3 * (400 + 800)
    mine = [row for row in rows if row["method"] == "IBP" and row["split"] == "test"]
    np.testing.assert_array_equal([row["certified:IBP"] == "1" for row in mine], runs[2].columns["certified:IBP"])
    np.testing.assert_allclose([float(r["margin:PGD-10"]) for r in mine], runs[2].columns["margin:PGD-10"], rtol=1e-6)
    assert mine[0]["knobs"] == "kappa=0.5" and mine[-1]["index"] == "399"


def test_pick_is_by_rule():
    found = made_columns(0.9, 0.5, 0.0, n=100, shift=0)
    rows, kind = pick(found, attack="PGD-10", seed=0, per_kind=3)
    assert list(kind) == ["worst"] * 3 + ["median"] * 3 + ["surviving"] * 3 and len(set(rows)) == 9
    right, margin = found["clean"], found["margin:PGD-10"]
    assert right[rows].all() and found["robust:PGD-10"][rows[6:]].all()
    np.testing.assert_array_equal(np.sort(margin[rows[:3]]), np.sort(margin[right])[:3])
    assert np.abs(margin[rows[3:6]] - np.median(margin[right])).max() < 0.05
    assert not np.array_equal(rows[6:], pick(found, attack="PGD-10", seed=1, per_kind=3)[0][6:])
    nothing = {**found, "clean": np.zeros(100, bool), "robust:PGD-10": np.zeros(100, bool)}
    assert len(pick(nothing, attack="PGD-10", seed=0, per_kind=3)[0]) == 0


def test_examples_are_those_of_the_columns(population, data, threat, key):
    net = jax.tree.map(lambda leaf: leaf[0], population)
    check = evaluator(attacks={"n": noise(threat), "c": strongest(threat)}, certifiers={}, threat=threat)
    found = columns(check, net, *data, key=key, batch_size=16, index=np.arange(41) + 7)
    for attack in ("n", "c"):
        e = adversarial_examples(check, net, *data, found, attack=attack, key=key, batch_size=16, seed=0)
        rows = e.index - 7
        np.testing.assert_array_equal(e.x, data[0][rows])
        np.testing.assert_allclose(np.abs(e.x_adv - e.x).max((1, 2)), found[f"distance_linf:{attack}"][rows], atol=1e-6)
        np.testing.assert_array_equal(e.prediction_adv, found[f"prediction:{attack}"][rows])
        np.testing.assert_array_equal(e.label, data[1][rows])
