"""What a wrong configuration ends in: one line that says where, what was given, and what is accepted."""

import traceback

USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What code written by a user (a config file, a factory) may raise while it is read and tried."""


class ConfigError(ValueError):
    """A configuration that cannot be used. `where` is the flag (`--config.loss.beta`), `reason` the rest of it."""

    def __init__(self, where: str, reason: str):
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


def field_error(path: str, reason: str) -> ConfigError:
    """The error of the field at the dotted `path`; "" is the whole config."""
    return ConfigError(f"--config.{path}" if path else "--config", one_line(reason))


def describe(error: BaseException, file: str | None = None) -> str:
    """`TypeError: message` in one line; with `file`, also the last line of it that was being run."""
    text = one_line(f"{type(error).__name__}: {error}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}: {text}" if lines else text


def one_line(text: str) -> str:
    """`text` with line breaks and runs of blanks turned into single blanks."""
    return " ".join(text.split())
