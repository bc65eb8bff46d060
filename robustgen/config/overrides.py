"""Values from the command line and from sweeps, put into a copy of a config."""

import ast
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import fiddle as fdl

from robustgen import knobs
from robustgen.config import fields, tree
from robustgen.config.errors import ConfigError, field_error

_QUOTIENT = re.compile(r"\s*([-+]?[\d.]+)\s*/\s*([\d.]+)\s*")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}


def override(config: fdl.Config, assignments: Iterable[str]) -> fdl.Config:
    """A copy of `config` changed by `["loss.beta=3", "threat.eps=8/255", "model.hidden=(64, 32)", "data.dir=/x"]`.

    A value is a Python literal, a quotient of two numbers, or else a bare word that is taken as a string; what is
    accepted is told by the annotation of the factory's parameter. A node used in several places changes in all of them.
    Functions and nodes cannot be set, but a number or None may take a schedule's place. Raises `ConfigError`.
    """
    changed = tree.copy(config)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found:
            raise field_error(path, f"needs a value: --config.{path}=...")
        changed = tree.put(changed, path, _accepted(tree.find(changed, path), parse(text)))
    return changed


def parse(text: str) -> Any:
    """The value that `text` stands for; never fails, since everything else is a string."""
    if text.strip() in _NOT_FINITE:
        return _NOT_FINITE[text.strip()]
    try:
        if quotient := _QUOTIENT.fullmatch(text):
            return float(quotient[1]) / float(quotient[2])
        return ast.literal_eval(text)
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return text


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """A copy of `config` with `{"loss.beta": number or tracer}` in place: what a population trains, or a sweep runs.

    What is shared stays shared. Concrete values are checked as on the command line. Raises `ConfigError`.
    """
    changed = tree.copy(config)
    for path, value in values.items():
        try:
            knobs.check(path, tree.find(changed, path).annotation, value)
        except knobs.KnobError as error:
            raise field_error(path, error.reason) from error
        changed = tree.put(changed, path, value)
    return changed


def _accepted(field: tree.Field, value: Any) -> Any:
    """`value` as the field takes it, a list for a tuple included."""
    if not fields.data_arms(field.annotation):
        raise _not_settable(field)
    reason = fields.refusal(field.annotation, value)
    if reason:
        quoted = fields.refusal(field.annotation, "") is None and not isinstance(value, str)
        raise field_error(field.path, reason + (f"; a string that looks so is quoted: '\"{value}\"'" if quoted else ""))
    return tuple(value) if isinstance(value, list) else value


def _not_settable(field: tree.Field) -> ConfigError:
    if tree.holds_node(field.value):
        names = ", ".join(inner.path for inner in tree.below(field))
        return field_error(field.path, f"is put together in the file; edit it, or set one of {names}")
    return field_error(field.path, "cannot be set on the command line (no plain value); edit the file")
