"""What interval bound propagation does at each primitive: `RULES`, by the primitive's name.

To bound a function with a primitive of your own: `bound(fn, interval, rules={**RULES, "name": rule})`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from robustgen.certify import arithmetic as ia
from robustgen.certify.interpreter import Equation, Rule
from robustgen.core import Array, Interval

Operand = Array | Interval

_INCREASING = """
    add add_any max min concatenate stack unstack tile pad clamp reshape transpose broadcast_in_dim slice squeeze rev
    split copy copy_p expand_dims stop_gradient convert_element_type reduce_precision optimization_barrier
    sharding_constraint name device_put reduce_sum reduce_max reduce_min reduce_and reduce_or cumsum cummax cummin
    cumlogsumexp reduce_window_sum reduce_window_max reduce_window_min exp exp2 expm1 tanh logistic erf erf_inv cbrt
    asin atan sinh asinh atanh sign floor ceil round and or logaddexp softplus elu selu celu leaky_relu relu6 hard_tanh
    log_sigmoid logsumexp logsumexp_kept""".split()

_DECREASING = "neg erfc acos not".split()

_TURNING = {
    "abs": (0.0,),
    "square": (0.0,),
    "cosh": (0.0,),
    "silu": (-1.2784645427610738,),  # where x sigmoid(x) has slope 0: x = -1 - W(1/e), W Lambert's function
    "gelu": (-0.752461422071016, -0.7517915246935644),  # of its tanh approximation and its own
    "mish": (-1.192431214515495,),
    "hard_silu": (-1.5,),
}


def _acosh(equation: Equation, x: Interval) -> Interval:
    return ia.increasing(equation, Interval(*(jnp.maximum(end, 1.0) for end in x)))


def _tan(equation: Equation, x: Interval) -> Interval:
    low, high = ia.increasing(equation, x)
    branch = [jnp.floor(end / math.pi + 0.5) for end in x]
    within = (branch[0] == branch[1]) & (x.upper - x.lower < math.pi)
    return Interval(jnp.where(within, low, -jnp.inf), jnp.where(within, high, jnp.inf))


def _sorted(equation: Equation, *operands: Interval) -> Interval:
    """Order statistics are nondecreasing in every entry; sorting by keys is not covered."""
    if len(operands) != 1:
        raise ia.UnknownPrimitive(equation.name, "moves values by perturbed keys")
    return ia.increasing(equation, *operands)


def _pieces(equation: Equation, x: Interval, *rest: Operand) -> Interval:
    """Linear on either side of zero, with exact slopes."""
    return ia.turning_at(0.0)(equation._replace(apply=lambda value: equation.apply(value, *rest)), x)


def _log_softmax(equation: Equation, x: Interval) -> Interval:
    """-log sum_j exp(x_j - x_i): each difference at its worst but the one with itself, which is 0."""
    axis = equation.params["axis"] % x.lower.ndim
    low, high = (jnp.moveaxis(end, axis, -1) for end in x)
    itself = jnp.eye(low.shape[-1], dtype=bool)

    def value(own: Array, others: Array) -> Array:
        differences = jnp.where(itself, 0, others[..., None, :] - own[..., :, None])
        return jnp.moveaxis(-jax.nn.logsumexp(differences, -1), -1, axis)

    return Interval(value(low, high), value(high, low))


def _softmax(equation: Equation, x: Interval) -> Interval:
    return Interval(*map(jnp.exp, _log_softmax(equation, x)))


_OTHER: dict[str, Rule] = {
    "sub": ia.sub,
    "leaky": _pieces,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "mul": ia.mul,
    "div": ia.div,
    "pow": ia.power,
    "integer_pow": ia.integer_power,
    "dot_general": ia.product,
    "conv_general_dilated": ia.product,
    "select_n": ia.select,
    "sort": _sorted,
    "log": ia.increasing_from(0.0, -math.inf),
    "log2": ia.increasing_from(0.0, -math.inf),
    "log1p": ia.increasing_from(-1.0, -math.inf),
    "sqrt": ia.increasing_from(0.0, 0.0),
    "rsqrt": ia.decreasing_from(0.0, math.inf),
    "acosh": _acosh,
    "sin": ia.periodic(math.pi / 2),
    "cos": ia.periodic(0.0),
    "tan": _tan,
    "gather": ia.indexed(1),
    "scatter": ia.indexed(1, 2),
    "scatter-add": ia.indexed(1, 2),
    "scatter-max": ia.indexed(1, 2),
    "scatter-min": ia.indexed(1, 2),
    "dynamic_slice": ia.indexed(1),
    "dynamic_update_slice": ia.indexed(2),
    "gt": ia.compared(lambda al, ah, bl, bh: al > bh, lambda al, ah, bl, bh: ah <= bl, same=False),
    "ge": ia.compared(lambda al, ah, bl, bh: al >= bh, lambda al, ah, bl, bh: ah < bl, same=True),
    "lt": ia.compared(lambda al, ah, bl, bh: ah < bl, lambda al, ah, bl, bh: al >= bh, same=False),
    "le": ia.compared(lambda al, ah, bl, bh: ah <= bl, lambda al, ah, bl, bh: al > bh, same=True),
    "eq": ia.compared(
        lambda al, ah, bl, bh: (al == bh) & (ah == bl), lambda al, ah, bl, bh: (ah < bl) | (al > bh), same=True
    ),
    "ne": ia.compared(
        lambda al, ah, bl, bh: (ah < bl) | (al > bh), lambda al, ah, bl, bh: (al == bh) & (ah == bl), same=False
    ),
    "is_finite": lambda equation, x: Interval(
        equation.apply(x.lower)[0] & equation.apply(x.upper)[0], jnp.ones(x.lower.shape, bool)
    ),
}

RULES: Mapping[str, Rule] = MappingProxyType(
    {name: ia.increasing for name in _INCREASING}
    | {name: ia.decreasing for name in _DECREASING}
    | {name: ia.turning_at(*points) for name, points in _TURNING.items()}
    | _OTHER
)


def _leaky(x: Array, slope: Array) -> Array:
    return jnp.where(x > 0, x, slope * x)


def _leaky_at_zero(x: Array, slope: Array) -> Array:
    return jnp.where(x >= 0, x, slope * x)


def _relu(x: Array) -> Array:
    return jnp.where(x > 0, x, 0.0)


def _logaddexp(x: Array, y: Array) -> Array:
    return jnp.logaddexp(x, y)


def _logsumexp(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jax.nn.logsumexp(x, axes, keepdims=keepdims)


_ALONE = (jax.nn.silu, jax.nn.softplus, jax.nn.elu, jax.nn.selu, jax.nn.celu, jax.nn.leaky_relu, jax.nn.relu6,
          jax.nn.hard_tanh, jax.nn.hard_silu, jax.nn.mish, jax.nn.log_sigmoid, jnp.logaddexp)  # fmt: skip

WHOLE: tuple[tuple[str, Callable], ...] = (
    *((fn.__name__, fn) for fn in _ALONE),
    ("logaddexp", _logaddexp),
    *(("leaky", fn) for fn in (_leaky, _leaky_at_zero, _relu)),
    *(("gelu", functools.partial(jax.nn.gelu, approximate=approximate)) for approximate in (False, True)),
    *(
        (fn.__name__, functools.partial(fn, axis=-1 - i))
        for fn in (jax.nn.softmax, jax.nn.log_softmax)
        for i in range(4)
    ),
    *(
        (name, functools.partial(_logsumexp, axes=axes, keepdims=name == "logsumexp_kept"))
        for name in ("logsumexp", "logsumexp_kept")
        for axes in ((0,), (1,), (2,), (3,), (0, 1), (1, 2), (2, 3), (0, 1, 2), (1, 2, 3))
    ),
)
"""Functions with rules of their own, tighter than those of the primitives they are made of, be they calls or written
out; softmax over one axis of arrays of up to four, log sum exp over neighbouring ones, too."""
