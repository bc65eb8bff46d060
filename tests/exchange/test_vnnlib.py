"""VNN-LIB properties: against the formula evaluated word by word, the competition's files, and what is refused."""

import gzip
import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from robustgen.exchange import BadProperty, ExchangeError, limits, load_vnnlib, parse_vnnlib, violates

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)))\n"


def test_the_nano_property():
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))(assert (<= Y_0 -1))"
    (box,) = parse_vnnlib(text).boxes
    (clause,) = box.clauses
    assert (box.lower, box.upper, clause.A, clause.b) == ([-1], [1], [[1]], [-1])


def test_boxes_with_clauses_of_their_own():
    text = (
        DECLARED
        + """
        (assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 2) (<= X_1 3) (<= Y_0 Y_1))
                    (and (>= X_0 4) (<= X_0 5) (>= X_1 6) (<= X_1 7) (>= Y_0 0.5) (<= Y_1 2))
                    (and (>= X_0 0) (<= X_0 1) (>= X_1 2) (<= X_1 3) (>= Y_1 9))))"""
    )
    first, second = parse_vnnlib(text).boxes
    np.testing.assert_array_equal([first.lower, first.upper], [[0, 2], [1, 3]])
    np.testing.assert_array_equal([second.lower, second.upper], [[4, 6], [5, 7]])
    np.testing.assert_array_equal([clause.A[0] for clause in first.clauses], [[1, -1], [0, -1]])
    np.testing.assert_array_equal([clause.b[0] for clause in first.clauses], [0, -9])
    np.testing.assert_array_equal(second.clauses[0].A, [[-1, 0], [0, 1]])
    np.testing.assert_array_equal(second.clauses[0].b, [-0.5, 2])


def test_competition_files(shared):
    """Each of the 30: the box is that of its rounded radius around an image, the clauses all other labels."""
    files = sorted((shared / "reference" / "certify" / "vnncomp").glob("prop_*.vnnlib"))
    assert len(files) == 30
    for path in files:
        (box,) = load_vnnlib(path).boxes
        label = int(path.read_text().split("label: ")[1].split(".")[0])
        eps = float(path.stem.split("_")[2])
        assert np.all(box.upper - box.lower <= 2 * eps + 1e-6) and np.max(box.upper - box.lower) > eps
        directions = np.array([clause.A[0] for clause in box.clauses])
        others = [i for i in range(10) if i != label]
        np.testing.assert_array_equal(directions, np.eye(10)[label] - np.eye(10)[others])
        assert all(clause.b == 0 for clause in box.clauses)


def test_bounds_are_those_of_the_text(shared):
    path = shared / "reference" / "certify" / "vnncomp" / "test_prop.vnnlib"
    (box,) = load_vnnlib(path).boxes
    np.testing.assert_array_equal(box.upper[:2], [-0.29855281193475053, 0.009549296585513092])
    np.testing.assert_array_equal(box.clauses[0].A, np.hstack([np.ones((4, 1)), -np.eye(4)]))


NAMES = ["X_0", "X_1", "Y_0", "Y_1"]
TERMS = st.recursive(
    st.one_of(st.sampled_from(NAMES), st.integers(-3, 3)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner, inner),
        st.tuples(st.just("-"), inner),
        st.tuples(st.just("*"), st.integers(-2, 2), inner),
    ),
    max_leaves=4,
)
ATOMS = st.tuples(st.sampled_from(["<=", ">="]), TERMS, TERMS)
FORMULAS = st.recursive(ATOMS, lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner), max_leaves=6)


def written(expression):
    if isinstance(expression, tuple):
        return f"({' '.join(map(written, expression))})"
    return str(expression)


def value(expression, at):
    """The formula itself, read word by word: no rows, no normal form."""
    if not isinstance(expression, tuple):
        return at[expression] if isinstance(expression, str) else expression
    word, *parts = expression
    parts = [value(part, at) for part in parts]
    if word in ("and", "or"):
        return all(parts) if word == "and" else any(parts)
    if word == "-" and len(parts) == 1:
        return -parts[0]
    return {"+": operator.add, "-": operator.sub, "*": operator.mul, "<=": operator.le, ">=": operator.ge}[word](*parts)


@given(st.lists(FORMULAS, min_size=1, max_size=3))
def test_the_normal_form_says_what_the_formula_says(formulas):
    """At all points of a grid in and around the box, in whole numbers, which float64 has exactly."""
    text = DECLARED + BOX + "".join(f"(assert {written(formula)})\n" for formula in formulas)
    grid = [dict(zip(NAMES, point, strict=True)) for point in np.ndindex(4, 3, 6, 6)]
    for at in grid:
        at.update(X_0=at["X_0"] - 1, X_1=at["X_1"] - 1, Y_0=2 * at["Y_0"] - 5, Y_1=2 * at["Y_1"] - 5)
    expected = [abs(at["X_0"]) <= 1 and abs(at["X_1"]) <= 1 and all(value(f, at) for f in formulas) for at in grid]
    try:
        property = parse_vnnlib(text)
    except BadProperty as error:
        assert "contradict" in error.reason and not any(expected)
        return
    points = [(np.array([at["X_0"], at["X_1"]]), np.array([at["Y_0"], at["Y_1"]])) for at in grid]
    assert [violates(property, x, y, tolerance=0) for x, y in points] == expected


def test_constraints_between_inputs_and_outputs():
    """v = (y, the inputs named in them) obeys A v <= b."""
    property = parse_vnnlib(DECLARED + BOX + "(assert (<= (+ Y_0 (* 2 X_1)) 0.5))")
    assert property.watched == (1,)
    (clause,) = property.boxes[0].clauses
    np.testing.assert_array_equal(clause.A, [[1, 0, 2]])
    seen = property.observe(lambda x: x + 10)(np.float32([1, 2]))
    np.testing.assert_array_equal(seen, [11, 12, 2])
    plain = parse_vnnlib(DECLARED + BOX + "(assert (<= Y_0 0))")
    assert plain.watched == () and plain.observe(abs) is abs


def test_other_ways_to_write(tmp_path):
    text = DECLARED.replace("(declare-const X_0 Real)", "(declare-fun X_0 () Real) ; an input")
    text = "(set-logic QF_LRA)" + text + BOX + "(assert(<= Y_0\n+.5e1))(check-sat)"
    (tmp_path / "p.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    assert load_vnnlib(tmp_path / "p.vnnlib.gz").boxes[0].clauses[0].b == 5
    scaled = parse_vnnlib(
        DECLARED + "(assert (<= (* -2 X_0) 4))(assert (>= 3 X_0))" + BOX.replace("(>= X_0 -1) (<= X_0 1)", "")
    )
    assert (scaled.boxes[0].lower[0], scaled.boxes[0].upper[0]) == (-2, 3)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("(assert (<= Y_0 Y_7))", 1, 17, "'Y_7' is neither a number nor a declared variable"),
        ("\n  (assert (< Y_0 1))", 2, 11, "'<' is no constraint: accepted are"),
        ("(assert (not (<= Y_0 1)))", 1, 9, "'not' is no constraint"),
        ("(assert Y_0)", 1, 9, "'Y_0' is no constraint"),
        ("(assert (<= Y_0))", 1, 9, "<= compares two terms, not 1"),
        ("(assert (<= Y_0 (* X_0 Y_1)))", 1, 17, "only linear terms"),
        ("(assert (<= Y_0 (/ 1 2)))", 1, 17, "'/' is no linear term"),
        ("(assert (<= Y_0 1e999))", 1, 9, "beyond float64"),
        ("(assert (<= Y_0 nan))", 1, 17, "'nan'"),
        ("(assert (<= Y_0 0x10))", 1, 17, "'0x10'"),
        ("(assert (or))", 1, 9, "of nothing"),
        ("(assert (<= Y_0 1) (<= Y_1 1))", 1, 1, "assert takes one constraint, not 2"),
        ("(assert\n (<= Y_0 1)", 1, 1, "never closed"),
        ("(assert (<= Y_0 1)))", 1, 20, "')' is not inside parentheses"),
        ("hello", 1, 1, "'hello' is not inside parentheses"),
        ("(declare-network f)", 1, 1, "'declare-network' is no command of VNN-LIB 1.0"),
        ("(declare-const X_0 Real)", 1, 16, "X_0 is declared twice"),
        ("(declare-const Z_0 Real)", 1, 1, "declarations are"),
        ("(declare-const X_02 Real)", 1, 1, "declarations are"),
        ("(declare-const X_3 Real)", 1, 16, "X_3 is declared but X_2 is not"),
        ("(declare-const X_2 Real)", 1, 16, "X_2 has no lower bound"),
        ("()", 1, 1, "this is no command"),
    ],
)
def test_refused(text, line, column, words):
    before = DECLARED + BOX
    with pytest.raises(BadProperty) as caught:
        parse_vnnlib(before + text, "p.vnnlib")
    error = caught.value
    assert (error.line, error.column) == (line + before.count("\n"), column)
    assert words in error.reason and str(error) == f"p.vnnlib:{error.line}:{error.column}: {error.reason}"
    assert isinstance(error, ExchangeError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOX + "(assert (<= X_0 -2))", "contradict"),
        (BOX + "(assert (<= 1 0))", "contradict"),
        ("", "X_0 has no lower bound"),
    ],
)
def test_refused_as_a_whole(text, words):
    with pytest.raises(BadProperty, match=words):
        parse_vnnlib(DECLARED + text)


def test_no_variables_at_all():
    with pytest.raises(BadProperty, match="declares no X_i"):
        parse_vnnlib("")


def test_depth_needs_no_stack():
    def nested(depth):
        return DECLARED + BOX + "(assert " + "(and " * (depth - 2) + "(<= Y_0 1)" + ")" * (depth - 1)

    assert len(parse_vnnlib(nested(limits.DEPTH)).boxes) == 1
    for depth in (limits.DEPTH + 1, 10**6):
        with pytest.raises(BadProperty, match="nested deeper than 128"):
            parse_vnnlib(nested(depth))


def test_no_explosion():
    """2^40 cases are counted, not made."""
    either = "(assert (or (<= Y_0 1) (>= Y_1 2)))\n"
    assert len(parse_vnnlib(DECLARED + BOX + 5 * either).boxes[0].clauses) == 32
    with pytest.raises(BadProperty, match=f"becomes {2**40} cases"):
        parse_vnnlib(DECLARED + BOX + 40 * either)


def test_limits_of_size(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "VARIABLES", 3)
    with pytest.raises(BadProperty, match="more than 3 variables"):
        parse_vnnlib(DECLARED)
    monkeypatch.setattr(limits, "TOKENS", 10)
    with pytest.raises(BadProperty, match="more than 10 words"):
        parse_vnnlib(BOX)
    monkeypatch.setattr(limits, "TEXT_BYTES", 20)
    (tmp_path / "p").write_text(DECLARED)
    with pytest.raises(BadProperty, match="more than 20 bytes"):
        load_vnnlib(tmp_path / "p")


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadProperty, match="no such file"):
        load_vnnlib(tmp_path / "absent.vnnlib")
    (tmp_path / "p.vnnlib").write_bytes(b"; a comment\n(assert \xff)")
    with pytest.raises(BadProperty, match="p.vnnlib:2:9: is no UTF-8 text"):
        load_vnnlib(tmp_path / "p.vnnlib")
