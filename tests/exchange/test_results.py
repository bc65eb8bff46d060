"""Results, counterexamples and lists of instances, as files and back."""

import gzip

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from robustgen.exchange import (
    BadModel,
    BadProperty,
    BadText,
    Counterexample,
    Instance,
    Result,
    Verdict,
    load_counterexample,
    load_instances,
    load_question,
    load_result,
    result_text,
    violates,
    write_result,
)

FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5)


def test_the_form():
    example = Counterexample(np.array([[0.25, -1.5]]), np.array([1e-7]))
    assert result_text(Result(Verdict.SAT, example)) == "sat\n((X_0 0.25)\n (X_1 -1.5)\n (Y_0 1e-07))\n"
    assert result_text(Result(Verdict.UNSAT)) == "unsat\n"
    for wrong in (Result(Verdict.SAT), Result(Verdict.UNKNOWN, example)):
        with pytest.raises(ValueError, match="goes with sat and only with it"):
            result_text(wrong)


@given(x=FLOATS, y=FLOATS)
def test_every_number_comes_back(tmp_path_factory, x, y):
    path = tmp_path_factory.mktemp("results") / "out.txt"
    write_result(path, Result(Verdict.SAT, Counterexample(np.array(x), np.array(y))))
    found = load_result(path)
    assert found.verdict is Verdict.SAT
    np.testing.assert_array_equal(found.counterexample.x, x)
    np.testing.assert_array_equal(found.counterexample.y, y)


def test_float32_comes_back(tmp_path):
    x = np.random.default_rng(0).normal(size=50).astype(np.float32)
    write_result(tmp_path / "out", Result(Verdict.SAT, Counterexample(x, x)))
    np.testing.assert_array_equal(load_result(tmp_path / "out").counterexample.x.astype(np.float32), x)


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.SAT])
def test_other_verdicts(verdict, tmp_path):
    write_result(tmp_path / "out", Result(verdict))
    assert load_result(tmp_path / "out") == Result(verdict)


def test_a_counterexample_by_itself(tmp_path):
    """In any order, gzipped, as the competition stores them."""
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"((Y_0 3)\n(X_1 2.0) (X_0 1e0))"))
    found = load_counterexample(tmp_path / "c.gz")
    np.testing.assert_array_equal(found.x, [1, 2])
    np.testing.assert_array_equal(found.y, [3])


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("maybe", 1, 1, "begins with 'maybe', not one of sat, unsat, unknown, timeout, error"),
        ("", 1, 1, "begins with nothing"),
        ("sat", 1, 1, "one counterexample was expected, here are 0"),
        ("sat\n((X_0 1)(Y_0 1))()", 2, 17, "here are 2"),
        ("sat\n((X_0 1) (Y_0 one))", 2, 10, "consists of"),
        ("sat\n((X_0 1) Y_0)", 2, 10, "consists of"),
        ("sat\n((X_0 1) (Y_0 1 2))", 2, 10, "consists of"),
        ("sat\n((X_0 1e999) (Y_0 1))", 2, 2, "consists of"),
        ("sat\n((X_0 1) (X_0 1) (Y_0 1))", 2, 10, "X_0 has two values"),
        ("sat\n((X_1 1) (Y_0 1))", 2, 1, "not all there"),
        ("sat\n((X_0 1))", 2, 1, "not all there"),
        ("sat\n((X_0 1)", 2, 1, "never closed"),
    ],
)
def test_wrong_results(text, line, column, words, tmp_path):
    (tmp_path / "out").write_text(text)
    with pytest.raises(BadText) as caught:
        load_result(tmp_path / "out")
    assert (caught.value.line, caught.value.column) == (line, column) and words in caught.value.reason
    assert not isinstance(caught.value, BadProperty)


def test_instances(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "a.onnx.gz").touch()
    (tmp_path / "b.vnnlib").touch()
    (tmp_path / "list.csv").write_text("onnx/a.onnx,b.vnnlib,60\n\n c.onnx , d.vnnlib , 1.5 \n")
    assert load_instances(tmp_path / "list.csv") == (
        Instance(tmp_path / "onnx" / "a.onnx.gz", tmp_path / "b.vnnlib", 60.0),
        Instance(tmp_path / "c.onnx", tmp_path / "d.vnnlib", 1.5),
    )


@pytest.mark.parametrize("line", ["a.onnx,b.vnnlib", "a,b,-1", "a,b,inf", "a,,3", "a,b,3,4"])
def test_wrong_instances(line, tmp_path):
    (tmp_path / "list.csv").write_text(f"a,b,1\n{line}\n")
    with pytest.raises(BadText, match=f"list.csv:2:1: '{line}' is not model.onnx,property.vnnlib,seconds"):
        load_instances(tmp_path / "list.csv")


def test_the_competition_test_instances(shared):
    """Five instances with known answers: nano and sat have counterexamples on a grid, at the others none are found."""
    folder = shared / "reference" / "certify" / "vnncomp"
    found = {}
    for model, property, timeout in load_instances(folder / "test_instances.csv"):
        net, asked = load_question(model, property)
        (box,) = asked.boxes
        points = np.random.default_rng(0).uniform(box.lower, box.upper, (300, asked.num_inputs))
        points = np.concatenate([box.lower[None], box.upper[None], points]).astype(np.float32)
        found[model.name] = any(violates(asked, x, net.flat(x), tolerance=1e-6) for x in points)
        assert timeout == 60
    assert not found["test_unsat.onnx"] and not found["test_tiny.onnx"] and not found["test_small.onnx"]


def test_a_question_that_does_not_fit(shared):
    folder = shared / "reference" / "certify" / "vnncomp"
    with pytest.raises(BadProperty, match="about 5 inputs and 5 outputs; .*nano.onnx has 1 and 1"):
        load_question(folder / "test_nano.onnx", folder / "test_prop.vnnlib")
    with pytest.raises(BadModel, match="no such file"):
        load_question(folder / "absent.onnx", folder / "test_prop.vnnlib")
