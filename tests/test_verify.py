"""The command `robustgen verify` on files of VNN-COMP: verdicts, formats, exit codes."""

import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import cli
from robustgen.exchange import load_onnx, load_result, load_vnnlib, parse_vnnlib, violates
from robustgen.verify import claims_of

pytest.importorskip("onnx")


@pytest.fixture
def files(shared):
    folder = shared / "reference" / "certify" / "vnncomp"
    if not folder.is_dir():
        pytest.skip("needs the competition's files in the shared folder")
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTGEN_CACHE", str(tmp_path / "cache"))


def run(capsys, *argv) -> tuple[int, list[str], str]:
    code = cli.main(["verify", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_a_counterexample_in_the_format_of_the_competition(files, capsys, tmp_path):
    model, question = files / "mnist-net_256x2.onnx", files / "prop_7_0.03.vnnlib"
    code, lines, err = run(capsys, model, question, "--timeout=200", f"--out={tmp_path / 'result.txt'}", "--quiet")
    assert code == 0 and lines[0] == "sat" and lines[1].startswith("((X_0 ") and lines[-1].endswith("))") and not err
    assert (tmp_path / "result.txt").read_text().splitlines() == lines
    net, x = load_onnx(model), load_result(tmp_path / "result.txt").counterexample.x
    assert np.array_equal(x, x.astype(np.float32))
    assert violates(load_vnnlib(question), x, net.flat(jnp.asarray(x, jnp.float32)), tolerance=0)


@pytest.mark.parametrize(
    ("model", "question", "split", "verdict"),
    [
        ("test_nano", "test_nano", "inputs", "unsat"),
        ("test_small", "test_small", "neurons", "unsat"),
        ("test_tiny", "test_tiny", "inputs", "unsat"),
        ("test_sat", "test_prop", "inputs", "sat"),
    ],
)
def test_the_competitions_own_tests(files, capsys, model, question, split, verdict):
    """The verdicts that the competition's tools gave."""
    code, lines, _ = run(capsys, files / f"{model}.onnx", files / f"{question}.vnnlib", f"--split={split}")
    assert (code, lines[0]) == (0, verdict)


def test_files_that_cannot_be_used(files, capsys, tmp_path):
    bad = tmp_path / "bad.vnnlib"
    bad.write_text("(assert (<= X_0 1))")
    for argv in ((files / "none.onnx", bad), (files / "test_nano.onnx", bad), (files / "test_nano.onnx", tmp_path)):
        code, lines, err = run(capsys, *argv)
        assert code == 2 and not lines and err.startswith("robustgen: ") and err.count("\n") == 1


def test_a_state_of_something_else(files, capsys, tmp_path):
    state = tmp_path / "state.npz"
    state.write_text("something")
    argv = files / "test_small.onnx", files / "test_small.vnnlib", f"--state={state}"
    code, lines, err = run(capsys, *argv)
    assert code == 2 and not lines and err.startswith("robustgen: ") and err.count("\n") == 1


def test_out_of_time(files, capsys):
    argv = files / "mnist-net_256x2.onnx", files / "prop_1_0.03.vnnlib", "--timeout=1e-6"
    code, lines, _ = run(capsys, *argv)
    assert (code, lines) == (1, ["timeout"])


def test_claims_of_boxes_and_clauses():
    """Two boxes, clauses of one and two rows: a claim each, short ones filled up with rows they have already."""
    asked = parse_vnnlib(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
        "(assert (or (and (>= X_0 0)(<= X_0 1)(>= Y_0 2)) (and (>= X_0 2)(<= X_0 3)(<= Y_0 1)(<= Y_1 4))))"
    )
    claims = claims_of(asked)
    assert claims.lower.tolist() == [[0], [2]] and claims.upper.tolist() == [[1], [3]]
    for y, expected in (([3, 0], [True, False]), ([0, 5], [False, False]), ([1, 4], [False, True])):
        fails = np.all(claims.A @ np.array(y, float) <= claims.b, 1)
        assert fails.tolist() == expected
