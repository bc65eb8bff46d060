"""Reads a config file: plain Python with a `get_config()` that returns a fiddle `Config`."""

import difflib
import importlib.util
import inspect
import pathlib
import sys
import types
from collections.abc import Callable

import fiddle as fdl

from robustgen.config.errors import USER_ERRORS, ConfigError, describe, one_line


def load(path_and_arg: str) -> fdl.Config:
    """The config of `configs/x.py`, or of `configs/x.py:arg`, whose `get_config(arg)` is given the text `arg`.

    A config file is code and is run: read what you run. Raises `ConfigError`: no such file (with the nearest name
    there is), no `get_config`, an error in the file (with its line), something else than a `Config` returned.
    """
    path, arg = split(path_and_arg)
    get_config = getattr(_module(path), "get_config", None)
    if not callable(get_config):
        raise _error(path_and_arg, "defines no get_config()")
    config = _call(get_config, path_and_arg, path, arg)
    if not isinstance(config, fdl.Config):
        raise _error(path_and_arg, f"get_config() must return a fiddle Config; got {type(config).__name__}")
    return config


def split(path_and_arg: str) -> tuple[str, str | None]:
    """("configs/x.py", "arg") of "configs/x.py:arg"; the argument is None where there is none."""
    head, found, arg = path_and_arg.partition(".py:")
    return (f"{head}.py", arg) if found else (path_and_arg, None)


def _module(path: str) -> types.ModuleType:
    if not pathlib.Path(path).is_file():
        raise _error(path, f"no such file{_suggestion(path)}")
    folder = pathlib.Path(path).resolve().parent
    if str(folder.parent) not in sys.path:  # one config may begin from another: from configs.x import ...
        sys.path.append(str(folder.parent))
    name = f"{folder.name}.{pathlib.Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _error(path, "not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except USER_ERRORS as error:
        raise _error(path, describe(error, path)) from error
    return module


def _call(get_config: Callable, path_and_arg: str, path: str, arg: str | None) -> object:
    given = () if arg is None else (arg,)
    try:
        inspect.signature(get_config).bind(*given)
    except TypeError as error:
        wanted = "takes no argument" if given else f"needs an argument: --config={path}:..."
        raise _error(path_and_arg, f"get_config() {wanted}") from error
    try:
        return get_config(*given)
    except USER_ERRORS as error:
        raise _error(path_and_arg, describe(error, path)) from error


def _suggestion(path: str) -> str:
    folders = {pathlib.Path(path).parent, pathlib.Path("configs")}
    there = {file.stem: file for folder in sorted(folders) for file in sorted(folder.glob("*.py"))}
    close = difflib.get_close_matches(pathlib.Path(path).stem, there, n=1)
    return f"; did you mean {there[close[0]].as_posix()}?" if close else ""


def _error(path_and_arg: str, reason: str) -> ConfigError:
    return ConfigError(f"--config={path_and_arg}", one_line(reason))
