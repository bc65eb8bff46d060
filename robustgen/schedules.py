"""Knobs that change while training: `beta=ramp(0.0, 6.0, begin=0.1, length=0.5)` in place of `beta=6.0`.

Times are fractions of training, so a ramp follows when epochs or batch size change. A `Schedule` maps (step, num_steps)
to a value: with Python ints in Python floats, no device touched; with tracers in the traced program. A config writes
one as `fdl.Config(ramp, 0.0, 6.0, begin=0.1, length=0.5)`; `config.at_step` and `config.build` resolve it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from robustgen.knobs import Fraction, KnobError, Range, checked

Real = Annotated[float, Range(-math.inf)]
Share = Annotated[float, Range(0, 1, open_low=True)]
Number = int | float | jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value that depends on the step.

    fn(step, num_steps)   the value; `step` an int or tracer, counted from 0, `num_steps` a Python int
    ends                  (lowest, highest) value ever taken, for checking against the range of a knob
    num_steps             the length of training once it is known (see `over`): then `schedule(step)` is enough, which
                          is how optax calls it
    """

    fn: Callable[[Number, int], Number]
    ends: tuple[Number, Number]
    num_steps: int | None = None

    def __call__(self, step: Number, num_steps: int | None = None) -> Number:
        """The value at `step`. Raises `KnobError` where the length of training is neither given nor known."""
        length = self.num_steps if num_steps is None else num_steps
        if length is None:
            raise KnobError("num_steps", "a schedule counts in fractions of training; bind it with .over(num_steps)")
        return self.fn(step, length)

    def over(self, num_steps: int) -> "Schedule":
        """The same schedule, of a training of `num_steps` steps."""
        return dataclasses.replace(self, num_steps=num_steps)


@checked
def ramp(start: Real, end: Real, *, begin: Fraction, length: Share) -> Schedule:
    """`start` until the fraction `begin` of training, then linearly to `end` over the fraction `length`, then `end`."""
    return Schedule(lambda step, n: _mix(start, end, _clip01((step - begin * n) / (length * n))), _ends(start, end))


@checked
def cosine(start: Real, end: Real, *, begin: Fraction, length: Share) -> Schedule:
    """As `ramp`, along half a cosine. Loshchilov & Hutter 2017 (arXiv 1608.03983), eq. 5, without restarts."""
    return Schedule(lambda step, n: _mix(start, end, _ease((step - begin * n) / (length * n))), _ends(start, end))


@checked
def piecewise(values: tuple[Real, ...], *, boundaries: tuple[Fraction, ...]) -> Schedule:
    """values[0] until the fraction boundaries[0] of training, then values[1], ...: one value more than boundaries.

    A boundary is rounded to the nearest step, which is the first of the new value. Raises `KnobError` where the counts
    do not match or the boundaries do not ascend.
    """
    if len(values) != len(boundaries) + 1:
        raise KnobError("values", f"must have {len(boundaries) + 1} entries, one more than boundaries; got {values!r}")
    if list(boundaries) != sorted(boundaries):
        raise KnobError("boundaries", f"must ascend; got {boundaries!r}")

    def fn(step: Number, num_steps: int) -> Number:
        index = sum(step >= round(boundary * num_steps) for boundary in boundaries)
        if not isinstance(step, jax.Array):
            return values[index]
        return jnp.stack([jnp.asarray(value, float) for value in values])[index]

    return Schedule(fn, _ends(*values))


@checked
def cyclic(start: Real, peak: Real, end: Real, *, peak_at: Share) -> Schedule:
    """Linearly from `start` to `peak` at the fraction `peak_at`, and linearly to `end` at the end of training.

    Smith 2017 (arXiv 1506.01186), one triangle: the learning rate of fast adversarial training (Wong et al. 2020, arXiv
    2001.03994) is `cyclic(0.0, 0.2, 0.0, peak_at=0.5)`.
    """
    return Schedule(lambda step, n: _rise_fall((start, peak, end), peak_at, step / n, _clip01), _ends(start, peak, end))


@checked
def one_cycle(start: Real, peak: Real, end: Real, *, peak_at: Share) -> Schedule:
    """As `cyclic`, along half cosines. Smith & Topin 2018 (arXiv 1708.07120) in the form of PyTorch's `OneCycleLR`.

    Deviation from PyTorch: `end` belongs to the step after the last, so it does not depend on the length of training.
    """
    return Schedule(lambda step, n: _rise_fall((start, peak, end), peak_at, step / n, _ease), _ends(start, peak, end))


@checked
def warmup(schedule: Schedule, *, length: Share) -> Schedule:
    """`schedule` times a factor that grows linearly from 0 to 1 over the first fraction `length` of training."""
    return Schedule(
        lambda step, n: schedule.fn(step, n) * _clip01(step / (length * n)), _ends(0.0, *schedule.ends)
    )


def _rise_fall(values: tuple, peak_at: float, time: Number, shape: Callable[[Number], Number]) -> Number:
    """Two mixes, of which the first has reached the peak when the second begins: no branch is needed."""
    start, peak, end = values
    risen = _mix(start, peak, shape(time / peak_at))
    return risen if peak_at == 1 else _mix(risen, end, shape((time - peak_at) / (1 - peak_at)))


def _mix(start: Number, end: Number, share: Number) -> Number:
    """Exactly `start` at 0 and exactly `end` at 1, unlike start + share * (end - start)."""
    return start * (1 - share) + end * share


def _ease(time: Number) -> Number:
    time = _clip01(time)
    return (1 - (jnp if isinstance(time, jax.Array) else math).cos(math.pi * time)) / 2


def _clip01(time: Number) -> Number:
    return jnp.clip(time, 0.0, 1.0) if isinstance(time, jax.Array) else min(max(time, 0.0), 1.0)


def _ends(*values: Number) -> tuple[Number, Number]:
    """Lowest and highest; where one is a tracer there is nothing to compare, nor to check."""
    if any(isinstance(value, jax.core.Tracer) for value in values):
        return values[0], values[-1]
    return min(values), max(values)
