"""Relaxations of several entries, and equations taken apart: against samples, and against what is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen.certify.interpreter import evaluate, trace
from robustgen.certify.relaxations import RELAXATIONS
from robustgen.certify.rewrites import REWRITES
from robustgen.certify.rules import RULES, WHOLE
from robustgen.core import Interval

R = np.random.RandomState(0)
LOW = R.uniform(-2, 1, (3, 4))
HIGH = LOW + R.uniform(0, 2, (3, 4)) * (R.uniform(size=(3, 4)) > 0.2)
BOX = Interval(jnp.asarray(LOW, jnp.float32), jnp.asarray(HIGH, jnp.float32))
SAMPLES = (LOW + R.uniform(size=(500, 3, 4)) * (HIGH - LOW)).astype(np.float32)
SAMPLES[:100] = np.where(R.uniform(size=(100, 3, 4)) > 0.5, BOX.lower, BOX.upper)


def bounds(fn, x: Interval, alpha: float | None = None) -> Interval:
    """Bounds of the last equation's planes over the intervals of its operands, those from interval arithmetic."""
    program = trace(fn, x.lower, WHOLE, REWRITES)
    last = program.equations[-1]
    operands = evaluate(program, {program.input: x}, last.inputs, RULES)
    result = RELAXATIONS[last.name](last, *operands)
    alphas = result.start if alpha is None else [None if s is None else jnp.full_like(s, alpha) for s in result.start]
    moved = [operand for operand in operands if isinstance(operand, Interval)]
    sides = []
    for sign, plane in zip((1, -1), result.planes(*alphas), strict=True):
        total = plane.offset
        for slope, operand in zip(plane.slopes, moved, strict=True):
            if slope is not None:
                worst = jnp.where(slope * sign > 0, slope * operand.lower, slope * operand.upper)
                total = total + (worst if worst.shape == total.shape else jnp.sum(worst, last.params["axes"]))
        sides.append(total)
    return Interval(*sides)


MANY = {
    "mul": lambda x: x * jnp.flip(x), "square": lambda x: x * x, "maximum": lambda x: jnp.maximum(x, jnp.flip(x)),
    "reduce_max": lambda x: jnp.max(x, 1), "reduce_min": lambda x: jnp.min(x, 0), "max_of_all": jnp.max,
    "logsumexp": lambda x: jax.nn.logsumexp(x, 1), "logsumexp_0": lambda x: jax.nn.logsumexp(x, axis=0),
    "logsumexp_of_all": jax.nn.logsumexp,
    "select": lambda x: jnp.where(jnp.flip(x) > 0, x, 0.5 * jnp.flip(x)), "stop": lax.stop_gradient,
    "sqrt_of_0": lambda x: jnp.sqrt(x * x),
}  # fmt: skip


@pytest.mark.parametrize("alpha", [None, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", MANY)
def test_no_sample_leaves_the_planes(name, alpha):
    """Planes at their corners are at least as wide as the function: samples of the operands' own values are inside."""
    fn = MANY[name]
    found = bounds(fn, BOX, alpha)
    values = np.asarray(jax.vmap(fn)(jnp.asarray(SAMPLES)))
    room = 1e-5 * (1 + np.abs(values))
    assert np.all(values >= found.lower - room) and np.all(values <= found.upper + room)


def planes_at(fn, x: Interval, points: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The planes of a function that is one equation, of x alone, at some points [N, *shape]."""
    program = trace(fn, x.lower, WHOLE, REWRITES)
    (equation,) = program.equations
    result = RELAXATIONS[equation.name](equation, *[x] * len(equation.inputs))
    planes = result.planes(*(None if s is None else jnp.full_like(s, alpha) for s in result.start))
    axes = tuple(1 + i for i in equation.params.get("axes", ()))
    sides = [[s for s in p.slopes if s is not None][0] * points for p in planes]
    return tuple(np.sum(side, axes) + p.offset for side, p in zip(sides, planes, strict=True))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "name", ["square", "reduce_max", "reduce_min", "max_of_all", "logsumexp", "logsumexp_0", "logsumexp_of_all"]
)
def test_planes_of_several_entries_hold(name, alpha):
    fn = MANY[name]
    lower, upper = planes_at(fn, BOX, SAMPLES, alpha)
    values = np.asarray(jax.vmap(fn)(jnp.asarray(SAMPLES)))
    assert np.all(lower <= values + 1e-5) and np.all(upper >= values - 1e-5)


def test_mccormick_is_exact_at_the_corners_it_touches():
    a, b = Interval(jnp.array([-1.0]), jnp.array([2.0])), Interval(jnp.array([-3.0]), jnp.array([1.0]))
    program = trace(lambda x: x * jnp.sin(x), jnp.zeros(1))
    result = RELAXATIONS["mul"](program.equations[-1], a, b)
    first = result.planes(*result.start)  # auto_LiRPA: b_l a + a_l b - a_l b_l below, b_u a + a_l b - a_l b_u above
    np.testing.assert_allclose([v[0] for v in first.lower.slopes], [-3, -1])
    np.testing.assert_allclose(first.lower.offset, [-3.0], rtol=1e-5)
    np.testing.assert_allclose([v[0] for v in first.upper.slopes], [1, -1])
    np.testing.assert_allclose(first.upper.offset, [1.0], rtol=1e-5)


def test_a_dominating_entry_is_the_maximum():
    box = Interval(jnp.array([[0.0, 2.0, -1.0], [0.0, 0.5, 0.0]]), jnp.array([[1.0, 3.0, 1.5], [1.0, 0.75, 0.5]]))
    (equation,) = trace(lambda x: jnp.max(x, 1), box.lower).equations
    lower, upper = RELAXATIONS["reduce_max"](equation, box).planes(None, None)
    np.testing.assert_array_equal(lower.slopes[0], [[0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(upper.slopes[0], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(upper.offset, [0, 1])


W = R.randn(4, 5).astype(np.float32)


def pooled(x, padding="SAME", reduce=(lax.max, -jnp.inf), **options):
    return lax.reduce_window(x, reduce[1], reduce[0], (2, 3), (1, 2), padding, **options)


def dynamic_filter(x):
    return lax.conv_general_dilated(x.reshape(1, 1, 3, 4), jnp.sin(x[:2, :2]).reshape(1, 1, 2, 2), (1, 1), "SAME")


TAKEN_APART = {
    "div": lambda x: x / (3 + jnp.flip(x) ** 2), "pow": lambda x: (3 + x) ** jnp.flip(x),
    "logaddexp": lambda x: jnp.logaddexp(x, jnp.flip(x)), "clamp": lambda x: lax.clamp(jnp.flip(x), x, 5 + x),
    "softmax": lambda x: jax.nn.softmax(x, 0), "log_softmax": jax.nn.log_softmax,
    "logsumexp": lambda x: jax.nn.logsumexp(x, (0, 1), keepdims=True),
    "dot": lambda x: x @ jnp.sin(x).T, "batched": lambda x: jnp.einsum("bij,bkj->bik", x[None], jnp.sin(x)[None]),
    "pool": pooled, "pool_min": lambda x: pooled(x, "VALID", (lax.min, jnp.inf)),
    "dilated": lambda x: pooled(x, ((1, 0), (0, 0)), window_dilation=(2, 1)), "prod": lambda x: jnp.prod(x, 1),
    "prod_of_all": jnp.prod, "repeated": lambda x: x - jnp.max(x, 1, keepdims=True),
    "scalar": lambda x: lax.mul(x[0, 0], x),
    "conv": dynamic_filter,
    "layer_norm": lambda x: jax.nn.standardize(x),
}  # fmt: skip


GONE = ("softmax", "log_softmax", "logsumexp_kept", "reduce_prod")


@pytest.mark.parametrize("name", TAKEN_APART)
def test_rewritten_programs_compute_the_same(name):
    fn = TAKEN_APART[name]
    program = trace(fn, BOX.lower, WHOLE, REWRITES)
    for x in SAMPLES[98:102]:
        (found,) = evaluate(program, {program.input: jnp.asarray(x)}, [program.output])
        np.testing.assert_allclose(found, fn(jnp.asarray(x)), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", TAKEN_APART)
def test_what_is_left_has_relaxations_of_its_operands_shape(name):
    """Every perturbed operand of an equation has the result's shape, but where it is reduced; windows are gone."""
    program = trace(TAKEN_APART[name], BOX.lower, WHOLE, REWRITES)
    for equation in program.equations:
        moved = [slot for slot in equation.inputs if slot in program.perturbed]
        assert not (
            equation.name in REWRITES and len(moved) > 1 and equation.name not in ("add", "sub", "mul", "max", "min")
        )
        assert not equation.name.startswith("reduce_window") and equation.name not in GONE
        if moved and equation.name in ("add", "sub", "mul", "max", "min"):
            shape = program.shapes[equation.outputs[0]].shape
            assert all(program.shapes[slot].shape == shape for slot in moved)


def names(fn) -> list[str]:
    return [equation.name for equation in trace(fn, BOX.lower, WHOLE).equations]


def test_functions_that_jax_writes_out_are_recognised():
    assert names(jax.nn.gelu) == names(lambda x: jax.nn.gelu(x, approximate=False)) == ["gelu"]
    assert names(lambda x: jax.nn.softmax(x, axis=0)) == ["softmax"]
    assert names(lambda x: jax.nn.logsumexp(x, axis=1)) == names(jax.nn.logsumexp) == ["logsumexp"]
    assert names(lambda x: jax.nn.logsumexp(x, axis=1, keepdims=True)) == ["logsumexp_kept"]
    kept = trace(lambda x: jax.nn.logsumexp(x, axis=1, keepdims=True), BOX.lower, WHOLE, REWRITES).equations
    assert kept[0].name == "logsumexp" and len(kept) == 2
    assert names(lambda x: jnp.where(x > 0, x, x * 0.3)) == ["leaky"]
    assert names(lambda x: jnp.logaddexp(x, 1.0)) == ["logaddexp"]
    both = names(lambda x: jax.nn.softmax(x, -1).sum() + jax.nn.logsumexp(x))
    assert "softmax" in both


def test_what_only_looks_like_one_is_left():
    assert "gelu" not in names(lambda x: 0.5 * x * (1 + jnp.tanh(0.7978845 * (x + 0.05 * x**3))))
    assert "leaky" not in names(lambda x: jnp.where(x > 0.1, x, x * 0.3))
    assert "leaky" not in names(lambda x: jnp.where(x > 0, x, jnp.flip(x) * 0.3))
    assert "softmax" not in names(lambda x: jnp.exp(x - jnp.max(x)) / jnp.sum(jnp.exp(x)))


def test_softmax_bounds_are_attained(x64):
    """Interval bounds of softmax have no slack: each entry is extremal at a corner."""
    box = Interval(jnp.asarray(LOW[0]), jnp.asarray(HIGH[0]))
    (equation,) = trace(jax.nn.softmax, box.lower, WHOLE).equations
    found = RULES["softmax"](equation, box)
    corners = np.array(np.meshgrid(*zip(LOW[0], HIGH[0], strict=True))).reshape(4, -1).T
    values = np.asarray(jax.nn.softmax(jnp.asarray(corners), -1))
    np.testing.assert_allclose(found.lower, values.min(0), rtol=1e-12)
    np.testing.assert_allclose(found.upper, values.max(0), rtol=1e-12)
