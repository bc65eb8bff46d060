"""What is raised for a file that cannot be used: always an `ExchangeError`, in one line."""

import os


class ExchangeError(ValueError):
    """A model, property, counterexample, result or list of instances that cannot be used. `path` is the file's."""

    def __init__(self, path: str | os.PathLike, message: str):
        super().__init__(" ".join(message.split()))
        self.path = os.fspath(path)


class BadModel(ExchangeError):
    """An ONNX file is missing, damaged, or holds what is not supported: `reason` names the node and what is."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(path, f"{os.fspath(path)}: {reason}")
        self.reason = reason


class BadText(ExchangeError):
    """A text file (counterexample, result, list of instances) is wrong at `line`, `column`, both counted from 1.

    Both are 0 where it is not the text that is wrong: the file is missing, too large, or does not fit the model.
    """

    def __init__(self, path: str | os.PathLike, line: int, column: int, reason: str):
        where = f"{os.fspath(path)}:{line}:{column}" if line else os.fspath(path)
        super().__init__(path, f"{where}: {reason}")
        self.line, self.column, self.reason = line, column, reason


class BadProperty(BadText):
    """A VNN-LIB file is wrong at `line`, `column`, or says what is not supported."""
