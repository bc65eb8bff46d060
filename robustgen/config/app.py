"""The command line of every experiment: absl flags, and `--config=configs/x.py --config.loss.beta=3` beside them.

    def main(run: app.Run) -> None: ...

    if __name__ == "__main__":
        app.run(main, "configs/digits_trades.py")

Whatever is wrong ends in one line on stderr and exit code 2, before any device is touched.
"""

import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import fiddle as fdl
from absl import app as absl_app
from absl import flags

from robustgen.config import building, diffing, dumping, fields, files, overrides, tree
from robustgen.config.errors import ConfigError
from robustgen.knobs import KnobError

_HELP = {"--help", "-help", "-h", "--helpshort", "--helpfull"}

flags.DEFINE_string("config", None, "Config file, configs/x.py or configs/x.py:arg; --config.a.b=value changes it.")
flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and the record of the run.")


class Run(NamedTuple):
    """What a script's `main` is handed: the resolved and validated `config`, the file's own `base`, the file's
    `path_and_arg`, `workdir` (None if not given), the whole command line `argv` and the `--config.*` in it."""

    config: fdl.Config
    base: fdl.Config
    path_and_arg: str
    workdir: str | None
    argv: tuple[str, ...]
    assignments: tuple[str, ...] = ()


def run(
    main: Callable[[Run], None],
    default_config: str | None = None,
    *,
    argv: Sequence[str] | None = None,
    expected: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Runs `main` under absl, with the config of the command line or of `default_config`. Does not return.

    Exit codes: 0; 2 with one line for a wrong command line or config, and for `KnobError`, `ConfigError` or `expected`
    errors (missing data, ...) raised by `main`; 130 after Ctrl-C, with a line on how to go on. Others keep a traceback.
    """
    line = tuple(sys.argv if argv is None else argv)
    try:
        absl_app.run(main, argv=list(line), flags_parser=lambda _: parse(line, default_config))
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted; the same command resumes: {shlex.join(['python', *line])}\n")
        sys.exit(130)
    except (ConfigError, KnobError, *expected) as error:
        sys.stderr.write(f"error: {' '.join(str(error).splitlines())}\n")
        sys.exit(2)
    sys.exit(0)


def parse(argv: Sequence[str], default_config: str | None = None) -> Run:
    """Reads flags, loads, changes and validates the config. Raises `ConfigError`; `--help` prints and exits with 0."""
    assignments, rest = _pick(argv)
    wanted, rest = bool(_HELP.intersection(rest)), [arg for arg in rest if arg not in _HELP]
    _parse_flags(rest)
    path_and_arg = flags.FLAGS.config or default_config
    resolved = resolve(path_and_arg, assignments) if path_and_arg else None
    if wanted:
        sys.stdout.write(usage(argv[0], resolved[0] if resolved else None))
        sys.exit(0)
    if resolved is None:
        raise ConfigError("--config", "is missing: which file? (--config=configs/x.py)")
    return Run(*resolved, path_and_arg, flags.FLAGS.workdir, tuple(argv), tuple(assignments))


def resolve(path_and_arg: str, assignments: Sequence[str] = ()) -> tuple[fdl.Config, fdl.Config]:
    """(config, base): the file's config changed by `["loss.beta=3"]` and validated, and as it is in the file.

    Raises `ConfigError`, naming the file.
    """
    base = files.load(path_and_arg)
    try:
        config = overrides.override(base, assignments)
        building.validate(config)
    except ConfigError as error:
        raise ConfigError(error.where, f"{error.reason}  ({path_and_arg})") from error
    return config, base


def usage(program: str, config: fdl.Config | None) -> str:
    """The help text: the script's own words, its flags, and each field of `config` with its value and what is taken."""
    script = sys.modules["__main__"].__doc__ or ""
    own = flags.FLAGS.module_help(sys.modules[__name__])
    parts = [script.strip(), f"python {program} --config=configs/x.py --workdir=runs/x [--config.field=value ...]"]
    parts += [flags.FLAGS.main_module_help().strip(), own.strip()]
    if config is not None:
        parts.append("\n".join(["fields of the config:", *map(_field_help, tree.leaves(config))]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _field_help(field: tree.Field) -> str:
    value = "" if field.value is fdl.NO_VALUE else diffing.show(dumping.to_json(field.value))
    return f"  --config.{field.path}={value}    {fields.words(field.annotation) or 'edit the file'}"


def _pick(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The `--config.*` assignments without dashes, and the other arguments. A value may be an argument of its own."""
    assignments, rest, pending = [], [], list(argv)
    while pending:
        arg = pending.pop(0)
        if arg == "--":
            return assignments, [*rest, arg, *pending]
        name = arg.lstrip("-")
        if not arg.startswith("-") or not name.startswith("config."):
            rest.append(arg)
        elif "=" in name or not pending or pending[0].startswith("--"):
            assignments.append(name.removeprefix("config."))
        else:
            assignments.append(f"{name.removeprefix('config.')}={pending.pop(0)}")
    return assignments, rest


def _parse_flags(argv: list[str]) -> None:
    """Raises `ConfigError` for flags that do not exist, do not parse, or are no flags."""
    absl_app.define_help_flags()
    program = pathlib.Path(argv[0]).name
    try:
        others = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise ConfigError(program, str(error)) from error
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = -1  # warnings; absl would go on to show what jax says of backends it does not find
    if others:
        raise ConfigError(program, f"takes flags only; got {others[0]!r} (did you mean --{others[0]}?)")
