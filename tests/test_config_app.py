"""The command line as a user meets it, in processes of their own; config files that are wrong; the record of a run."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from robustgen import config
from robustgen.config import app
from robustgen.config.recording import git_state

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = '''
import fiddle as fdl
from robustgen import threats
from robustgen.knobs import Count, checked

@checked
def experiment(*, threat, num_steps: Count):
    return threat

def get_config(eps="0.1"):
    return fdl.Config(experiment, threat=fdl.Config(threats.linf, eps=float(eps)), num_steps=3)
'''
SCRIPT = '''"""Trains a thing."""
import json, sys, time
from absl import flags
from robustgen import config
from robustgen.config import app

flags.DEFINE_integer("rounds", 1, "How often.")

def main(run):
    if flags.FLAGS.rounds == 9:
        print("ready", flush=True)
        time.sleep(60)
    if flags.FLAGS.rounds == 8:
        raise LookupError("no data;\\nrun this")
    if flags.FLAGS.rounds == 7:
        raise ArithmeticError("a bug")
    print(json.dumps([run.config.threat.eps, run.config.num_steps, run.workdir, flags.FLAGS.rounds, run.path_and_arg]))

if __name__ == "__main__":
    app.run(main, "configs/here.py", expected=(LookupError,))
'''


@pytest.fixture
def project(tmp_path) -> pathlib.Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "here.py").write_text(CONFIG)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def command(*args: str) -> list[str]:
    return [sys.executable, "train.py", *args]


def call(project: pathlib.Path, *args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*args), cwd=project, env=env, capture_output=True, text=True)


def test_flags_of_the_script_and_fields_of_the_config_work_side_by_side(project):
    args = ["--rounds=2", "--config=configs/here.py:0.25", "--config.num_steps", "7", "--workdir", "runs/x"]
    done = call(project, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [0.25, 7, "runs/x", 2, "configs/here.py:0.25"]


@pytest.mark.parametrize(
    ("arg", "line"),
    [
        ("--config.threat.epz=1", "error: --config.threat.epz: unknown field; did you mean threat.eps?  (configs"),
        ("--config=configs/heer.py", "error: --config=configs/heer.py: no such file; did you mean configs/here.py?"),
        ("--round=3", "error: train.py: Unknown command line flag 'round'. Did you mean: rounds ?"),
        ("--rounds=8", "error: no data; run this"),
    ],
)
def test_what_is_wrong_ends_in_one_line_and_exit_code_2(project, arg, line):
    done = call(project, arg)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(line)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--workdir"], "train.py: Missing value for flag --workdir"),
        (["--verbosity=many"], "train.py: flag --verbosity=many"),
        (["config.num_steps=3"], "train.py: takes flags only; got 'config.num_steps=3' (did you mean --config"),
        ([], "--config: is missing: which file? (--config=configs/x.py)"),
    ],
)
def test_wrong_flags_are_one_line(args, line):
    with pytest.raises(config.ConfigError) as error:
        app.parse(["train.py", *args])
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_a_bug_keeps_its_traceback(project):
    done = call(project, "--rounds=7")
    assert done.returncode == 1 and "Traceback" in done.stderr and "a bug" in done.stderr


def test_help_lists_the_flags_and_every_field_with_what_it_takes(project):
    done = call(project, "--config.num_steps=5", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("Trains a thing.", "--rounds", "--workdir", "--config.threat.eps=0.1    a number, finite and >= 0"):
        assert text in done.stdout
    assert "--config.num_steps=5    a whole number, finite and >= 1" in done.stdout


def test_ctrl_c_says_how_to_go_on(project):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command("--rounds=9"), cwd=project, env=env, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == "\ninterrupted; the same command resumes: python train.py --rounds=9\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "defines no get_config()"),
        ("def get_config():\n    return {}", "get_config() must return a fiddle Config; got dict"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("def get_config(:", "SyntaxError: invalid syntax"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def get_config(arg):\n    return arg", "needs an argument: --config="),
        (
            "import fiddle as fdl\nfrom robustgen.threats import linf\ndef get_config():\n"
            "    return fdl.Config(linf,\n      epz=1)",
            "line 4: TypeError: Cannot bind arguments",
        ),
    ],
)
def test_wrong_files_are_one_line(tmp_path, text, reason):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(config.ConfigError) as error:
        config.load(str(tmp_path / "x.py"))
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_an_argument_that_is_not_taken(tmp_path):
    (tmp_path / "x.py").write_text("def get_config():\n    return 1")
    with pytest.raises(config.ConfigError, match="takes no argument"):
        config.load(str(tmp_path / "x.py") + ":3")


def test_record_is_complete_and_reads_back(project):
    base = config.load(str(project / "configs" / "here.py"))
    changed = config.override(base, ["threat.eps=0.3"])
    argv = ["train.py", "--config.threat.eps=0.3", "--workdir=a b"]
    run = config.record(project / "run" / "1", changed, base, argv=argv, seed=5, data_hash="ab12")
    folder = project / "run" / "1"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "diff.txt", "run.json"]
    assert (folder / "diff.txt").read_text() == "threat.eps: 0.1 -> 0.3\n"
    assert json.loads((folder / "run.json").read_text()) == run
    assert run["command"] == "train.py --config.threat.eps=0.3 '--workdir=a b'"
    assert (run["seed"], run["data_hash"], run["device"]["platform"]) == (5, "ab12", "cpu")
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy"} <= {name for name, v in run["versions"].items() if v}
    stored = json.loads((folder / "config.json").read_text())
    back = config.from_json(stored["knobs"]["threat"])
    assert config.diff(back, changed.threat) == []
    assert run["fingerprint"] == config.fingerprint(changed) != config.fingerprint(base)


def test_git_state_tells_a_clean_checkout_from_a_changed_one(tmp_path):
    assert git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x.x"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "a", "--no-verify"], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**state, "dirty": True}
