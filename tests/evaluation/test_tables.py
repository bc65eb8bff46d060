"""Rows, significance and the three ways to write a table."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from robustgen.evaluation import metrics, tables
from robustgen.evaluation.columns import ContradictionError
from robustgen.evaluation.intervals import holm, paired_difference, wilson
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import front, percent, summarize
from robustgen.evaluation.verdict import significance, verdict

from .synthetic import made_run, made_runs


@pytest.fixture(scope="module")
def summary():
    return summarize([*made_runs(), Run("PGD_AT", 4, {}, None, failure="out of memory")])


def test_rows(summary):
    assert [row.label for row in summary.rows] == ["TRADES β=0", "TRADES β=6", "IBP"]
    first = summary.rows[0]
    hits = np.stack([run.columns["clean"] for run in first.runs])
    assert first.clean.examples == wilson(float(hits.mean() * 400), 400) and first.clean.seeds.n == 3
    assert first.robust_gap.value == pytest.approx(0.05, abs=0.02)
    assert [row.pareto for row in summary.rows] == [True, True, False]
    assert [row.label for row in front(summary.rows)] == ["TRADES β=0", "TRADES β=6"]
    assert (summary.n, summary.n_train, summary.attacks, summary.certifiers) == (400, 800, ["PGD-10"], ["IBP"])
    assert [run.method for run in summary.failed] == ["PGD_AT"]


def test_significance_is_paired_and_corrected(summary):
    hits = [np.stack([run.columns["robust:PGD-10"] for run in row.runs]) for row in summary.rows]
    raw = [paired_difference(hits[1], other).p for other in (hits[0], hits[2])]
    np.testing.assert_allclose([c.p for c in summary.robust], holm(raw))
    assert [c.best for c in summary.robust] == ["TRADES β=6"] * 2
    assert [row.best_robust for row in summary.rows] == [False, True, False]
    twins = summarize([made_run("A", {}, 0.9, 0.8, 0.0, 0), made_run("B", {}, 0.9, 0.8, 0.0, 0)])
    assert all(row.best_robust and row.best_clean for row in twins.rows) and not twins.robust[0].significant
    assert "not significantly different from B (p = 1.00)" in significance(twins)[1]


def test_verdict_says_what_the_data_say(summary):
    words = verdict(summary)
    assert re.match(
        r"TRADES β=6 gains \d+\.\d points \[.*p < 0.001\] of robust accuracy over TRADES β=0 under PGD-10 and pays "
        r"for it in clean accuracy: −3.\d points",
        words[0],
    )
    assert words[-1].startswith("IBP certifies the most: 50.")
    free = summarize([made_run("A", {}, 0.9, 0.5, 0.0, 0), made_run("B", {}, 0.9, 0.8, 0.0, 0)])
    assert "at no measurable cost in clean accuracy: +0.0 points" in verdict(free)[0]
    same = summarize([made_run("A", {}, 0.9, 0.799, 0.0, 0), made_run("B", {}, 0.9, 0.801, 0.0, 0)])
    assert "not measurably more robust" in verdict(same)[0]
    better = summarize([made_run("A", {}, 0.7, 0.5, 0.0, 0), made_run("B", {}, 0.9, 0.8, 0.0, 0)])
    assert "gains clean accuracy too" in verdict(better)[0]
    alone = verdict(summarize([made_run("A", {}, 0.9, 0.8, 0.0, 0)]))
    assert alone[0].startswith("A: clean 89.0 % [85.6, 91.7], robust 79.0 %")


def test_refuses_what_cannot_be_compared():
    lie = made_run("A", {}, 0.9, 0.5, 0.6, 0)
    with pytest.raises(ContradictionError, match="certified by IBP and yet broken .attack PGD-10.: index"):
        summarize([lie])
    run, other = made_run("A", {}, 0.9, 0.5, 0.0, 0), made_run("B", {}, 0.9, 0.5, 0.0, 0)
    renamed = {name.replace("PGD-10", "FGSM"): value for name, value in other.columns.items()}
    with pytest.raises(ValueError, match="attacked differently"):
        summarize([run, other._replace(columns=renamed)])
    with pytest.raises(ValueError, match="different examples"):
        summarize([run, made_run("B", {}, 0.9, 0.5, 0.0, 0, n=300)])
    with pytest.raises(ValueError, match="nothing to summarize"):
        summarize([Run("A", 0, {}, None)])


NUMBER = re.compile(r"[+−]?\d+\.\d \[[+−]?\d+\.\d, [+−]?\d+\.\d\] ±\d+\.\d")


def test_every_number_has_interval_and_n(summary):
    for made in tables.tables(summary):
        for row in made.rows:
            numbers = [f"{cell.value} {cell.rest}" for cell in row[1:-2] if cell.value not in ("", "*", "–")]
            assert numbers and all(NUMBER.fullmatch(number) for number in numbers)
            assert row[-2].value == "3" and row[-1].value in ("400", "800/400")


def test_console(summary):
    text = tables.console(summary)
    assert max(map(len, text.splitlines())) <= 110
    lines = text.splitlines()
    heads = [line for line in lines if line.startswith(" method")]
    assert "robust % (PGD-10)" in heads[0] and "certified % (IBP)" in heads[0] and "robust gap" in heads[1]
    for line in lines:
        if line.startswith((" TRADES", " IBP")):
            assert len(NUMBER.findall(line)) >= 2
    assert "contradictions (certified and yet broken): 0 of 3600" in text
    assert "numerically sound (float32 rounding proved not to matter): IBP no" in text
    assert "missing: PGD_AT seed 4: out of memory" in text


def test_one_seed_claims_no_spread():
    text = tables.console(summarize(made_runs(1)))
    table = "".join(line for line in text.splitlines(True) if line.startswith((" TRADES", " IBP")))
    assert "±" not in table and "inf" not in text and "nan" not in text


def test_markdown_has_whole_rows(summary):
    lines = [line for line in tables.markdown(summary).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {8, 6}
    assert any("**" in line for line in lines)


def test_latex_escapes():
    nasty = r"50% & more_$#{x}~^\ <β≤1> [a]"
    escaped = tables.escape_latex(nasty)
    bare = re.sub(r"\\text\w+\{\}|\$[^$]*\$|\\[&%$#_{}]", "", escaped)
    assert not re.search(r"[&%$#_~^\\<>|]", bare) and "β" not in escaped
    text = tables.latex(summarize([made_run("a_b & 5%", {}, 0.9, 0.5, 0.0, 0)]))
    assert r"a\_b \& 5\%" in text and text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    body = [line for line in text.splitlines() if not line.startswith("%")]
    for line in body:
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) in (6, 4)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_with_booktabs_alone(summary, tmp_path):
    text = tables.latex(summary)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_percent():
    assert (percent(0.9876), percent(-0.0001, True), percent(-0.01)) == ("98.8", "+0.0", "−1.0")


def test_knobs_that_do_not_vary_are_not_in_the_label():
    runs = [made_run("A", {"loss.beta": b, "eps": 0.1}, 0.9, 0.5, 0.0, s) for b in (1.0, 2.5) for s in (0, 1)]
    assert [row.label for row in summarize(runs).rows] == ["A β=1", "A β=2.5"]
    assert metrics.over_seeds(metrics.clean, [run.columns for run in runs]).seeds.n == 4
