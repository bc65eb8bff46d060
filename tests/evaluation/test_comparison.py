"""Comparisons: what is compared with what, adjusted over all pairs, written as tables, and what is refused."""

import csv
import io

import numpy as np
import pytest

from robustgen.evaluation import comparison_tables, tables
from robustgen.evaluation.comparison import (
    ComparisonError,
    Side,
    bootstrap_test,
    compare,
    exact_test,
    mid_p_test,
    pairwise,
    seeds_test,
)
from robustgen.evaluation.intervals import holm, mcnemar, paired_difference
from robustgen.evaluation.metrics import clean, robust, robust_to
from robustgen.evaluation.paired import mcnemar_mid_p, newcombe_paired, paired_bootstrap

from .synthetic import made_columns

A, B, C = (made_columns(*shares, n=200, shift=shift) for shares, shift in
           (((0.98, 0.85, 0), 0), ((0.95, 0.7, 0), 1), ((0.9, 0.7, 0.5), 2)))  # fmt: skip
SIDES = [Side(name, [columns], robust) for name, columns in (("a", A), ("b", B), ("c|d", C))]


def test_compare_is_the_test_of_the_outcomes():
    a, b = A["robust:PGD-10"], B["robust:PGD-10"]
    found = compare(*SIDES[:2], exact_test())
    assert (found.first, found.second, found.n, found.p_holm) == ("a", "b", 200, None)
    assert found.difference == newcombe_paired(a, b) and found.p_value == mcnemar(a, b)
    assert (found.only_first, found.only_second) == (np.sum(a & ~b), np.sum(b & ~a))
    assert compare(*SIDES[:2], mid_p_test()).p_value == mcnemar_mid_p(a, b) < found.p_value
    test = bootstrap_test(num_resamples=999, seed=3)
    drawn = compare(*SIDES[:2], test)
    assert (drawn.difference, drawn.p_value) == paired_bootstrap(a, b, num_resamples=999, seed=3)
    assert "999" in drawn.test


def test_two_attacks_on_one_net():
    columns = {**A, "robust:Square": A["robust:PGD-10"] | (np.arange(200) < 20) & A["clean"]}
    sides = [Side(name, [columns], robust_to(name)) for name in ("PGD-10", "Square")]
    found = compare(*sides, exact_test())
    assert found.only_first == 0 and found.only_second == np.sum(columns["robust:Square"] & ~A["robust:PGD-10"]) > 0


def test_seeds_are_taken_by_the_seeds_test_alone():
    sides = [Side("a", [A, B], clean), Side("b", [C], clean)]
    found = compare(*sides, seeds_test())
    reference = paired_difference(np.stack([A["clean"], B["clean"]]), C["clean"])
    assert (found.difference, found.p_value) == reference and found.only_first is None
    for test in (exact_test(), mid_p_test(), bootstrap_test(num_resamples=9, seed=0)):
        with pytest.raises(ComparisonError, match="one seed a side; got 2 and 1"):
            compare(*sides, test)


def test_pairwise_adjusts_over_all_pairs():
    found = pairwise(SIDES, mid_p_test())
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c|d"), ("b", "c|d")]
    np.testing.assert_array_equal([c.p_holm for c in found], holm([c.p_value for c in found]))
    assert any(c.p_holm > c.p_value for c in found)


def test_tables_and_csv_say_the_same():
    found = pairwise(SIDES, exact_test())
    table = comparison_tables.comparison_table(found, "Robust accuracy")
    text, pipes = tables.console_table(table), tables.markdown_table(table)
    assert "over the 3 pairs" in text and "c\\|d" in pipes and pipes.count("\n|") == 5
    rows = list(csv.DictReader(io.StringIO(comparison_tables.comparison_csv(found))))
    for row, c in zip(rows, found, strict=True):
        assert float(row["difference"]) == pytest.approx(c.difference.value, abs=1e-8)
        assert int(row["only_first"]) == c.only_first and float(row["p_holm"]) == pytest.approx(c.p_holm, rel=1e-8)
    accuracy = tables.console_table(comparison_tables.accuracy_table(SIDES, "Robust accuracy"))
    assert f"{100 * np.mean(A['robust:PGD-10']):.1f} [" in accuracy and "±" not in accuracy.splitlines()[2]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"index": np.arange(200) + 150}, "a and b were measured on different examples: 200 and 200 of them, 50 in"),
        ({"index": np.arange(200)[::-1]}, "200 in common, not in one order"),
        ({"label": (np.arange(200) + 1) % 10}, "their labels differ"),
    ],
)
def test_other_examples_are_refused_in_one_line(changed, words):
    with pytest.raises(ComparisonError) as refusal:
        compare(Side("a", [A], clean), Side("b", [{**B, **changed}], clean), exact_test())
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_column_and_mixed_seeds_are_refused_by_name():
    with pytest.raises(ComparisonError, match="b has no column 'robust:FAB'"):
        compare(Side("a", [A], clean), Side("b", [B], robust_to("FAB")), exact_test())
    with pytest.raises(ComparisonError, match="b: runs were evaluated on different examples"):
        compare(Side("a", [A], clean), Side("b", [B, {**B, "index": B["index"] + 1}], clean), seeds_test())
