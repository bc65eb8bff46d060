"""What interval bound propagation does at each primitive: `RULES`, by the primitive's name.

To bound a function with a primitive of your own: `bound(fn, interval, rules={**RULES, "name": rule})`.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from robustgen.certify import arithmetic as ia
from robustgen.certify.interpreter import Equation, Rule
from robustgen.core import Interval

_INCREASING = """
    add add_any max min concatenate stack unstack tile pad clamp reshape transpose broadcast_in_dim slice squeeze rev
    split copy copy_p expand_dims stop_gradient convert_element_type reduce_precision optimization_barrier
    sharding_constraint name device_put reduce_sum reduce_max reduce_min reduce_and reduce_or cumsum cummax cummin
    cumlogsumexp reduce_window_sum reduce_window_max reduce_window_min exp exp2 expm1 tanh logistic erf erf_inv cbrt
    asin atan sinh asinh atanh sign floor ceil round and or logaddexp softplus elu selu celu leaky_relu""".split()

_DECREASING = "neg erfc acos not".split()

_TURNING = {
    "abs": (0.0,),
    "square": (0.0,),
    "cosh": (0.0,),
    "silu": (-1.2784645427610738,),  # where x sigmoid(x) has slope 0: x = -1 - W(1/e), W Lambert's function
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


_OTHER: dict[str, Rule] = {
    "sub": ia.sub,
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

WHOLE: tuple[tuple[str, Callable], ...] = tuple(
    (fn.__name__, fn) for fn in (jax.nn.silu, jax.nn.softplus, jax.nn.elu, jax.nn.selu, jax.nn.celu, jax.nn.leaky_relu)
)
"""Functions with rules of their own, tighter than those of the primitives they are made of."""
