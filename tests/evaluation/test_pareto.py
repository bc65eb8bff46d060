"""The natural-against-certified picture: its front by brute force, and what is drawn where."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robustgen.evaluation.draw import svg
from robustgen.evaluation.pareto import certified_front, pareto
from robustgen.evaluation.summary import summarize

from .synthetic import made_run, made_runs

SHARES = st.integers(1, 9).map(lambda tenths: tenths / 10)


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6))
def test_front_is_what_no_row_beats(points):
    """Of clean and certified accuracy: robust accuracy, which another front is of, says the opposite here."""
    runs = [
        made_run("IBP", {"kappa": float(i)}, clean, 1.0, min(clean, certified), 0, n=10)
        for i, (clean, certified) in enumerate(points)
    ]
    rows = summarize([run._replace(curve=None, examples=None) for run in runs]).rows
    found = {row.label for row in certified_front(rows)}
    for row in rows:
        here = row.clean.value, row.certified.value
        beaten = any(
            (other.clean.value, other.certified.value) != here
            and other.clean.value >= here[0] and other.certified.value >= here[1]
            for other in rows
        )  # fmt: skip
        assert (row.label in found) != beaten
    assert np.all(np.diff([row.clean.value for row in certified_front(rows)]) <= 0)


def test_picture_has_a_line_a_method_through_its_settings_and_names_their_ends():
    figure = pareto(summarize(made_runs()).rows)
    (ax,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    rows = summarize(made_runs()).rows
    own = [(100 * row.clean.value, 100 * row.certified.value) for row in rows if row.method == "TRADES"]
    np.testing.assert_allclose(lines["TRADES"], own)
    assert len(lines["IBP"]) == 1 and (ax.get_xlabel(), ax.get_ylabel()) == (
        "clean accuracy (%)", "certified accuracy (%)",
    )  # fmt: skip
    assert {text.get_text() for text in ax.texts} == {"β=0", "β=6"}
    assert svg(figure, "pareto").count("<path") > 5
    figure.savefig(io.BytesIO(), format="png")
