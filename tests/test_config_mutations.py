"""Every field of every config, given what it does not take: one line on stderr, exit code 2, no device touched.

All mutations of one config go through the real command line (`app.run`), in one process of their own.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from robustgen import config
from robustgen.config import fields, tree
from robustgen.data.source import DataError
from robustgen.knobs import Range

ROOT = pathlib.Path(__file__).parents[1]

CONFIGS = sorted(file.name for file in (ROOT / "configs").glob("[!_]*.py"))

SYNTHETIC = '''
from typing import Annotated, Literal
import fiddle as fdl
from robustgen import optim, threats
from robustgen.knobs import Count, CountOrZero, Fraction, Positive, Range, checked
from robustgen.schedules import ramp


@checked
def experiment(*, threat, optimizer, attacks, name: str, mode: Literal["slow", "fast"], flag: bool,
               widths: tuple[Count, ...], pair: tuple[Fraction, Annotated[float, Range(-1, 1)]] | None,
               beta: Positive, by=max,
               seed: CountOrZero | None = None):
    return threat


def get_config():
    threat = fdl.Config(threats.l2, eps=fdl.Config(ramp, 0.0, 0.5, begin=0.0, length=0.5))
    return fdl.Config(experiment, threat=threat, optimizer=fdl.Config(optim.adam, learning_rate=1e-3),
                      attacks={"PGD-10": fdl.Config(threats.linf, eps=0.1)}, name="x", mode="slow", flag=False,
                      widths=(64, 32), pair=(0.5, -0.5), beta=2.0)
'''

HARNESS = """
import contextlib, io, json, sys
from robustgen.config import app

ran = []

def outcome(assignment):
    stderr, argv = io.StringIO(), ["train.py", "--config=" + sys.argv[1], *assignment]
    with contextlib.redirect_stderr(stderr):
        try:
            app.run(lambda run: ran.append(assignment), argv=argv)
        except SystemExit as stop:
            return [stop.code or 0, stderr.getvalue(), bool(ran) and ran.pop() == assignment]

outcomes = [outcome(a) for a in json.load(sys.stdin)]
from jax._src import xla_bridge
json.dump({"outcomes": outcomes, "device": xla_bridge.backends_are_initialized()}, sys.stdout)
"""


def ranges(annotation: Any) -> list[Range]:
    """The `Range` of each number that the annotation describes, also inside tuples; a number without one fails."""
    found = []
    for arm in fields.data_arms(annotation):
        base, *extras = typing.get_args(arm) if typing.get_origin(arm) is Annotated else (arm,)
        if base in (int, float):
            mine = [extra for extra in extras if isinstance(extra, Range)]
            assert mine, f"a number without a Range: {annotation}"
            found += mine
        elif typing.get_origin(base) is tuple:
            found += [r for arg in typing.get_args(base) if arg is not Ellipsis for r in ranges(arg)]
    return found


def outside(accepted: Range) -> Iterator[float]:
    """Finite numbers just beyond each end there is."""
    if accepted.low > float("-inf"):
        yield accepted.low if accepted.open_low else accepted.low - 1
    if accepted.high < float("inf"):
        yield accepted.high if accepted.open_high else accepted.high + 1


def wrong_values(field: tree.Field) -> Iterator[str]:
    """Texts that `field` must refuse: of a wrong type, nan, infinite, out of each end of its range."""
    bases = {typing.get_origin(a) or a for a in map(_base, fields.data_arms(field.annotation))}
    yield from ("nan", "inf", "-inf", "{1: 2}", "b'x'", "3j")
    if str not in bases:
        yield "no_such_word"
    if bool not in bases:
        yield from ("True", "False")
    if not bases & {int, float}:
        yield "3"
    if int in bases and float not in bases:
        yield from ("3.0", "1/2")
    if tuple in bases:
        yield from ("(1, 'word')", "('nan',)", "(1, True)")
    else:
        yield "(1, 2)"
        for accepted in ranges(field.annotation):
            yield from map(str, outside(accepted))


def _base(arm: Any) -> Any:
    return typing.get_args(arm)[0] if typing.get_origin(arm) is Annotated else arm


def mutations(field: tree.Field) -> Iterator[str]:
    """Assignments that must be refused: names with a letter doubled, dropped, added, and every wrong value."""
    path = field.path
    for typo in (path + path[-1], path[:-1], path + ".x", path.replace(".", "_") + "_"):
        yield f"{typo}=1"
    yield from (f"{path}={value}" for value in wrong_values(field))
    if isinstance(field.value, tuple) and fields.data_arms(field.annotation):
        for entry in tree.below(field):
            yield from (f"{entry.path}={value}" for value in wrong_values(entry))


def run(cfg_file: str, assignments: list[list[str]]) -> dict:
    """The [exit code, stderr, whether main was reached] of each command line; whether a device was touched."""
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, cfg_file],
        input=json.dumps(assignments),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return json.loads(done.stdout)


def file_of(name: str, folder: pathlib.Path) -> str:
    """The path of a config in configs/, or of the synthetic one, written to `folder`."""
    if name != "synthetic":
        return str(ROOT / "configs" / name)
    (folder / "synthetic.py").write_text(SYNTHETIC)
    return str(folder / "synthetic.py")


@pytest.fixture(params=["synthetic", *CONFIGS])
def cfg_file(request, tmp_path) -> str:
    return file_of(request.param, tmp_path)


@pytest.mark.parametrize("name", ["synthetic", "digits_trades.py"])
def test_every_mutation_of_every_field_ends_in_one_line_and_exit_code_2(name, tmp_path):
    cfg_file = file_of(name, tmp_path)
    held = list(tree.leaves(config.load(cfg_file)))
    assignments = [[f"--config.{mutation}"] for field in held for mutation in mutations(field)]
    assert len(assignments) > 10 * len(held)
    result = run(cfg_file, assignments)
    assert not result["device"]
    for (assignment,), (code, stderr, reached) in zip(assignments, result["outcomes"], strict=True):
        assert code == 2 and not reached, f"{assignment} was accepted: {stderr}"
        assert stderr.startswith("error: --config.") and stderr.count("\n") == 1, f"{assignment}: {stderr}"
        assert cfg_file in stderr and len(stderr) < 600, f"{assignment}: {stderr}"


def test_every_mutation_is_refused_in_all_configs():
    """The same without the command line around it, once for each name and annotation that the configs hold."""
    tried = set()
    for name in CONFIGS:
        base = config.load(str(ROOT / "configs" / name))
        for field in tree.leaves(base):
            kind = (field.path.rpartition(".")[2], repr(field.annotation), type(field.value))
            for mutation in () if kind in tried else mutations(field):
                with pytest.raises(config.ConfigError, match="^[^\\n]*$"):
                    config.override(base, [mutation])
                    raise AssertionError(f"{name}: {mutation} was accepted")
            tried.add(kind)


def test_every_field_takes_its_own_value_and_changes_nothing(cfg_file):
    """So the refusals above are of the values, not of everything."""
    base = config.load(cfg_file)
    for field in tree.leaves(base):
        if fields.data_arms(field.annotation) and not callable(field.value):
            text = field.value if isinstance(field.value, str) else repr(field.value)
            same = config.override(base, [f"{field.path}={text}"])
            assert config.fingerprint(same) == config.fingerprint(base), field.path


def test_every_config_is_valid(cfg_file):
    with contextlib.suppress(DataError):  # what is not prepared on this machine is no fault of the config
        config.validate(config.load(cfg_file))


def test_an_unchanged_config_reaches_main_without_a_device(tmp_path):
    result = run(file_of("synthetic", tmp_path), [[], ["--config.beta=3"], ["--config.threat.eps=8/255"]])
    assert result == {"outcomes": [[0, "", True]] * 3, "device": False}


def test_every_number_of_every_config_has_a_range(cfg_file):
    for field in tree.walk(config.load(cfg_file)):
        try:
            ranges(field.annotation)
        except AssertionError as error:
            raise AssertionError(f"{cfg_file}: {field.path}: {error}") from error


def test_a_schedule_in_place_of_a_number_is_refused_where_it_leaves_the_range(tmp_path):
    base = config.load(file_of("synthetic", tmp_path))
    for wrong in ("threat.eps.end=-0.5", "threat.eps.start=-1e-9"):
        with pytest.raises(config.ConfigError, match="--config.threat.eps: the schedule must be .* >= 0; got -"):
            config.validate(config.override(base, [wrong]))
    config.validate(config.override(base, ["threat.eps.end=1"]))
