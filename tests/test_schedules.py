"""Schedules against NumPy and optax, on Python ints and on tracers."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustgen import optim, schedules
from robustgen.knobs import KnobError

N = 400
STEPS = np.arange(N + 1)

CASES = {  # schedule, and an oracle over all steps that shares no code with it
    "ramp": (
        schedules.ramp(1.0, 7.0, begin=0.1, length=0.5),
        lambda: np.interp(STEPS, [0.1 * N, 0.6 * N], [1.0, 7.0]),
    ),
    "ramp down": (
        schedules.ramp(0.5, -0.25, begin=0.0, length=1.0),
        lambda: np.interp(STEPS, [0, N], [0.5, -0.25]),
    ),
    "cosine": (
        schedules.cosine(3.0, 0.0, begin=0.0, length=1.0),
        lambda: np.array([optax.cosine_decay_schedule(3.0, N)(int(step)) for step in STEPS]),
    ),
    "piecewise": (
        schedules.piecewise((0.1, 0.01, 0.001), boundaries=(0.75, 0.9)),
        lambda: np.where(STEPS < 300, 0.1, np.where(STEPS < 360, 0.01, 0.001)),
    ),
    "cyclic": (
        schedules.cyclic(0.0, 0.2, 0.05, peak_at=0.4),
        lambda: np.interp(STEPS, [0, 0.4 * N, N], [0.0, 0.2, 0.05]),
    ),
    "one_cycle": (
        schedules.one_cycle(0.2 / 25, 0.2, 0.2 / 1e4, peak_at=0.3),
        lambda: np.array([optax.cosine_onecycle_schedule(N, 0.2, 0.3, 25, 400)(int(step)) for step in STEPS]),
    ),
    "warmup": (
        schedules.warmup(schedules.piecewise((2.0, 1.0), boundaries=(0.5,)), length=0.25),
        lambda: np.minimum(STEPS / 100, 1) * np.where(STEPS < 200, 2.0, 1.0),
    ),
}
each = pytest.mark.parametrize("name", CASES)


@each
def test_python_ints_give_the_oracle_in_python_floats(name):
    schedule, oracle = CASES[name]
    values = [schedule(int(step), N) for step in STEPS]
    assert all(type(value) is float for value in values)
    np.testing.assert_allclose(values, oracle(), rtol=2e-6, atol=1e-6)


@each
def test_tracers_give_the_same(name):
    schedule, oracle = CASES[name]
    values = jax.jit(jax.vmap(lambda step: schedule(step, N)))(jnp.asarray(STEPS))
    np.testing.assert_allclose(values, oracle(), rtol=2e-6, atol=1e-6)


@each
def test_ends_are_the_extremes(name):
    schedule, _ = CASES[name]
    values = [schedule(int(step), N) for step in STEPS]
    low, high = schedule.ends
    assert low <= min(values) and max(values) <= high
    assert name == "warmup" or (low, high) == pytest.approx((min(values), max(values)))


@each
def test_times_are_fractions_of_training(name):
    schedule, _ = CASES[name]
    assert [schedule(4 * step, 4 * N) for step in range(0, N, 7)] == pytest.approx(
        [schedule(step, N) for step in range(0, N, 7)]
    )
    assert schedule.over(N)(17) == schedule(17, N)


@pytest.mark.parametrize("num_steps", [7, 90, 100, 977])
def test_boundaries_fall_on_the_same_step_for_ints_and_tracers(num_steps):
    schedule = schedules.piecewise((3.0, 2.0, 1.0), boundaries=(0.3, 0.9))
    traced = jax.jit(jax.vmap(lambda step: schedule(step, num_steps)))(jnp.arange(num_steps))
    assert traced.tolist() == [schedule(step, num_steps) for step in range(num_steps)]


def test_a_ramp_reaches_its_end_exactly_and_can_be_differentiated():
    for end in (0.1, 8 / 255, 6.0):
        schedule = schedules.ramp(0.03, end, begin=0.1, length=0.5)
        assert schedule(0, N) == 0.03 and schedule(N, N) == end and schedule(240, N) == end
        assert jax.jit(lambda step, schedule=schedule: schedule(step, N))(N) == jnp.float32(end)
    slope = jax.grad(lambda end: schedules.ramp(0.0, end, begin=0.0, length=1.0)(100, N))(2.0)
    assert slope == pytest.approx(0.25)


def test_optax_follows_a_bound_schedule():
    schedule = schedules.ramp(0.0, 1.0, begin=0.0, length=1.0).over(4)
    tx = optim.sgd(learning_rate=schedule, momentum=0.0, weight_decay=0.0)
    state, moved = tx.init(jnp.zeros(1)), []
    for _ in range(5):
        update, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
        moved.append(-float(update[0]))
    assert moved == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("factory", "knob"),
    [
        (lambda: schedules.ramp(0.0, math.nan, begin=0.0, length=1.0), "end"),
        (lambda: schedules.ramp(0.0, 1.0, begin=10, length=0.5), "begin"),
        (lambda: schedules.ramp(0.0, 1.0, begin=0.0, length=0), "length"),
        (lambda: schedules.piecewise((1.0, 2.0), boundaries=()), "values"),
        (lambda: schedules.piecewise((1.0, 2.0, 3.0), boundaries=(0.5, 0.25)), "boundaries"),
        (lambda: schedules.cyclic(0.0, 1.0, 0.0, peak_at=0.0), "peak_at"),
        (lambda: schedules.ramp(0.0, 1.0, begin=0.0, length=1.0)(3), "num_steps"),
    ],
)
def test_wrong_knobs_are_refused_by_name(factory, knob):
    with pytest.raises(KnobError) as refused:
        factory()
    assert refused.value.knob == knob


def test_no_device_is_touched_on_python_ints():
    code = (
        "from robustgen import schedules as s\n"
        "for f in (s.ramp(0., 1., begin=.1, length=.5), s.one_cycle(0., 1., 0., peak_at=.3),\n"
        "          s.warmup(s.piecewise((1., .1), boundaries=(.5,)), length=.1), s.cyclic(0., 1., 0., peak_at=1)):\n"
        "    f(3, 10)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
