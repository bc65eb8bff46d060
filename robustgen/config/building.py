"""From a config to what it describes: each node's factory called once, bottom up, whatever shares the node."""

import functools
from collections.abc import Callable
from typing import Any

import fiddle as fdl
from fiddle import daglish

from robustgen import knobs
from robustgen.config import dumping, fields, tree
from robustgen.config.dumping import join
from robustgen.config.errors import USER_ERRORS, ConfigError, describe, field_error
from robustgen.schedules import Number, Schedule

Resolve = Callable[[str, Any, Schedule], Any]
"""(path, annotation, schedule) -> what the factory is given in place of the schedule."""

_NOMINAL_STEPS = 1000  # the length of training that schedules are tried with before it is known


def build(config: Any, num_steps: int | None = None) -> Any:
    """What `config` describes. A `Schedule` reaches only parameters that take one (`learning_rate: Positive |
    Schedule`), of `num_steps` steps where given; elsewhere it is a `ConfigError`, as is a missing or refused argument.

    Unlike `fdl.build`, it may be called while another build runs, and exceptions of factories pass unwrapped.
    """

    def resolve(path: str, annotation: Any, schedule: Schedule) -> Schedule:
        if not fields.admits_schedule(annotation):
            raise field_error(path, "is a schedule, which only what is built anew at each step (the loss) can follow")
        return schedule if num_steps is None else schedule.over(num_steps)

    return _construct(config, functools.partial(_call, resolve))


def at_step(config: Any, step: Number, num_steps: int) -> Any:
    """What `config` describes at `step` (int or tracer) of `num_steps`, every schedule replaced by its value there.

    `loss_at = lambda step: at_step(config.loss, step, num_steps)` is called inside the traced step. Parameters that
    take a `Schedule` are given it, bound to `num_steps`. A config that is itself a schedule gives its value.
    Raises `ConfigError`, with paths relative to `config`.
    """
    built = _construct(config, functools.partial(_call, _value_at(step, num_steps)))
    return built(step, num_steps) if isinstance(built, Schedule) else built


def validate(config: Any) -> None:
    """Checks every argument against its factory's annotations, and calls every factory, touching no device.

    A schedule is tried at the first step, and both its extremes are held against the range. Raises `ConfigError` for
    the first node that is refused, bottom up, and for what a record of the run could not name (lambdas).
    """
    dumping.to_json(config)

    def call(node: fdl.Buildable, path: str, arguments: dict) -> Any:
        for name, annotation in fields.annotations(node).items():
            if name in arguments:
                _check(join(path, name), annotation, arguments[name])
        try:
            return _call(_value_at(0, _NOMINAL_STEPS), node, path, arguments)
        except ConfigError:
            raise
        except USER_ERRORS as error:
            raise field_error(path, describe(error)) from error

    _construct(config, call)


def _construct(config: Any, call: Callable[[fdl.Buildable, str, dict], Any]) -> Any:
    def visit(value: Any, state: daglish.State) -> Any:
        if not isinstance(value, fdl.Buildable):
            return state.map_children(value)
        results = state.flattened_map_children(value)
        return call(value, tree.dotted(state.current_path), results.metadata.arguments(results.values))

    return daglish.MemoizedTraversal.run(visit, config)


def _call(resolve: Resolve, node: fdl.Buildable, path: str, arguments: dict) -> Any:
    factory, known = fdl.get_callable(node), fields.annotations(node)
    given = {
        name: _resolved(resolve, join(path, name), known.get(name, Any), value) for name, value in arguments.items()
    }
    if isinstance(node, fdl.Partial):
        factory = functools.partial(functools.partial, factory)
    else:
        _refuse_missing(node, path)
    try:
        positional = [given.pop(index) for index in sorted(key for key in given if isinstance(key, int))]
        return factory(*positional, **given)
    except knobs.KnobError as error:
        raise field_error(join(path, error.knob) if error.knob in arguments else path, str(error.reason)) from error


def _refuse_missing(node: fdl.Buildable, path: str) -> None:
    name = dumping.short_name(fdl.get_callable(node))
    for argument, value in tree.children(node).items():
        if value is fdl.NO_VALUE:
            raise field_error(join(path, argument), f"missing; {name}() cannot do without it")


def _resolved(resolve: Resolve, path: str, annotation: Any, value: Any) -> Any:
    if isinstance(value, Schedule):
        return resolve(path, annotation, value)
    if type(value) in (tuple, list) and any(isinstance(entry, Schedule) for entry in value):
        inner = [_resolved(resolve, f"{path}.{i}", fields.element(annotation, str(i)), v) for i, v in enumerate(value)]
        return type(value)(inner)
    return value


def _value_at(step: Number, num_steps: int) -> Resolve:
    def resolve(path: str, annotation: Any, schedule: Schedule) -> Any:
        del path
        return schedule.over(num_steps) if fields.admits_schedule(annotation) else schedule(step, num_steps)

    return resolve


def _check(path: str, annotation: Any, value: Any) -> None:
    """Raises `ConfigError` unless the parameter takes `value`, or both ends of it where it is a schedule."""
    try:
        if isinstance(value, Schedule):
            accepted = fields.closed(annotation) if fields.admits_schedule(annotation) else annotation
            for end in value.ends:
                knobs.check(path, accepted, end)
        elif type(value) in (tuple, list) and any(isinstance(entry, Schedule) for entry in value):
            for i, entry in enumerate(value):
                _check(f"{path}.{i}", fields.element(annotation, str(i)), entry)
        else:
            knobs.check(path, annotation, value)
    except knobs.KnobError as error:
        subject = "the schedule " if isinstance(value, Schedule) else ""
        raise field_error(path, subject + error.reason) from error
