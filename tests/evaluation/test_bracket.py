"""Shares of a ladder against counts made by hand."""

import numpy as np

from robustgen.evaluation.bracket import Ladder, picture, rows, table
from robustgen.evaluation.intervals import wilson

NAMES = ("clean", "PGD", "IBP", "CROWN")
LADDER = Ladder(0.1, NAMES, np.array([0, 1, -1, -1, -1]), np.array([-1, -1, 2, 3, -1]), (0.1, 0.2, 0.3, 0.4))


def test_shares_are_counts():
    assert LADDER.standing(0) == wilson(4, 5)
    assert LADDER.standing(1) == wilson(3, 5)
    assert LADDER.proved(2) == wilson(1, 5)
    assert LADDER.proved(3) == wilson(2, 5)


def test_table_says_what_is_undecided():
    lines = table([LADDER]).splitlines()
    cells = lines[2].split(" | ")
    assert cells[0] == "0.1" and cells[-3:] == ["20.0", "1", "5"]
    assert [cell.split(" ")[0] for cell in cells[1:-3]] == ["80.0", "60.0", "20.0", "40.0"]


def test_rows_and_picture_have_every_method_at_every_radius():
    smaller = LADDER._replace(eps=0.05, proved_by=np.array([-1, 2, 2, 2, 3]), broken_by=np.array([0, -1, -1, -1, -1]))
    assert [row[:3] for row in rows([smaller, LADDER])][4:] == [
        (0.1, "clean", "standing"), (0.1, "PGD", "standing"), (0.1, "IBP", "proved"), (0.1, "CROWN", "proved"),
    ]  # fmt: skip
    ax = picture([smaller, LADDER]).axes[0]
    shown = {line.get_label(): line for line in ax.containers}
    assert {"stands PGD", "proved, up to IBP", "proved, up to CROWN"} <= set(shown)
