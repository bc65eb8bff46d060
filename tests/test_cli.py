"""The command line: what it prints, and that everything wrong is one line and exit code 2."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from robustgen import cli


def refusal(capsys, *argv: str) -> str:
    """What `robustgen ARGV` says on stderr when it refuses: has to be one line, with exit code 2."""
    try:
        code = cli.main(list(argv))
    except SystemExit as stop:  # what argparse does
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and not out and err.startswith("robustgen") and err.count("\n") == 1
    return err


def test_without_arguments_it_says_what_one_can_do(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "python experiments/quickstart.py" in out and "robustgen prepare mnist" in out


def test_help_needs_no_jax():
    code = "import sys, robustgen.cli as c; c.main([]); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parents[1], capture_output=True)


def test_doctor_tells_versions_devices_data_and_cache(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTGEN_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data" / "mnist" / "3.0.1"
    data.mkdir(parents=True)
    (data / "dataset_info.json").touch()
    assert cli.main(["doctor", f"--dir={tmp_path / 'data'}"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'data'}: mnist/3.0.1" in out and "cpu:7" in out
    assert f"{tmp_path / 'cache'}: can be written, holds 0 MiB" in out and "jax " in out


def test_doctor_names_what_is_amiss(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUSTGEN_CACHE", str(tmp_path / "file" / "cache"))
    assert cli.main(["doctor", f"--dir={tmp_path / 'no'}"]) == 0
    out = capsys.readouterr().out
    assert "no such folder" in out and "cannot be written" in out and "set ROBUSTGEN_CACHE" in out


@pytest.mark.parametrize("argv", [["prepre"], ["prepare"], ["doctor", "--dri=x"], ["prepare", "a", "b"]])
def test_typing_errors_are_one_line(capsys, argv):
    assert "--help" in refusal(capsys, *argv)


def test_unknown_data_set_is_one_line_with_the_nearest_names(capsys, tmp_path):
    assert "fashion_mnist?" in refusal(capsys, "prepare", "fashon_mnist", f"--dir={tmp_path}")
    refusal(capsys, "prepare", "../x", f"--dir={tmp_path}")


def test_lack_of_tensorflow_is_one_line_with_the_pip_command(capsys, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorflow" else find(name, *a))
    said = refusal(capsys, "prepare", "mnist", f"--dir={tmp_path}")
    assert "pip install 'robustgen[tf]'" in said


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), OSError(28, "No space left on device")])
def test_failed_download_is_one_line_and_leaves_nothing_half_done(capsys, tmp_path, monkeypatch, error):
    import tensorflow_datasets

    def fail(self, **_):
        raise error

    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: True)
    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
    said = refusal(capsys, "prepare", "mnist", f"--dir={tmp_path}")
    assert "downloading mnist failed" in said and ("no route to host" in said or "No space left" in said)
    assert "is not prepared" in refusal_of_find(tmp_path)


def refusal_of_find(root) -> str:
    from robustgen.data.catalogue import find
    from robustgen.data.source import DataError

    with pytest.raises(DataError) as error:
        find("mnist", root)
    return str(error.value)


def test_prepared_data_is_left_alone(capsys, shared):
    assert cli.main(["prepare", "mnist", f"--dir={shared / 'tfds'}"]) == 0
    assert "train 60000, test 10000" in capsys.readouterr().out
