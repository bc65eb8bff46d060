"""Operators that take each element by itself, and those of two with broadcasting."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.exchange.ops.call import Call, Op, OpError, Values, scalar_of


def of_one_rank(*arrays: Values) -> tuple[Values, ...]:
    """The arrays with leading axes of size 1 where others have more: promotion of ranks is said, not left to JAX."""
    rank = max(array.ndim for array in arrays)
    return tuple(array.reshape((1,) * (rank - array.ndim) + tuple(array.shape)) for array in arrays)


def _unary(name: str) -> Op:
    """What NumPy and jax.numpy have under one name."""
    return Op(lambda call, x: getattr(call.xp, name)(x), folds=True)


def _binary(fn: Callable[[Values, Values], Values]) -> Op:
    return Op(lambda call, a, b: fn(*of_one_rank(a, b)), folds=True)


def _variadic(name: str) -> Op:
    def fn(call: Call, *xs: Values) -> Values:
        return functools.reduce(getattr(call.xp, name), of_one_rank(*xs))

    return Op(fn, folds=True)


def _logical(name: str) -> Op:
    def fn(call: Call, *xs: Values) -> Values:
        if any(x.dtype != np.bool_ for x in xs):
            raise OpError(f"is of truth values, not of {xs[0].dtype}")
        return getattr(call.xp, name)(*of_one_rank(*xs))

    return Op(fn, folds=True)


def div(call: Call, a: Values, b: Values) -> Values:
    """a / b; integers are cut towards 0, as ONNX has it, and not divided by 0."""
    a, b = of_one_rank(a, b)
    if a.dtype.kind == b.dtype.kind == "f":
        return a / b
    if call.xp is np and not np.all(b):
        raise OpError("divides an integer by 0")
    return (call.xp.sign(a) * call.xp.sign(b) * (abs(a) // abs(b))).astype(a.dtype)


def mean(call: Call, *xs: Values) -> Values:
    """The mean of several tensors, element by element."""
    return functools.reduce(operator.add, of_one_rank(*xs)) / len(xs)


def power(call: Call, x: Values, exponent: Values) -> Values:
    """x ** exponent. Whole constants become products, 0.5 a square root: tighter to bound than the general power."""
    if x.dtype.kind in "iu" and call.xp is np and not (exponent.dtype.kind in "iuf" and np.all(exponent >= 0)):
        raise OpError("raises an integer to a negative power")
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and exponent.ndim <= x.ndim and call.xp is jnp:
        value = scalar_of("the exponent", exponent)
        if value == 0.5:
            return jnp.sqrt(x)
        if value == round(value) and abs(value) <= 64:
            return jax.lax.integer_pow(x, int(value))
    x, exponent = of_one_rank(x, exponent)
    return call.xp.power(x, exponent.astype(x.dtype))


def clip(call: Call, x: Values, low: Values | None = None, high: Values | None = None) -> Values:
    """min(max(x, low), high): attributes before opset 11, inputs since."""
    if call.opset < 11:
        low, high = (np.asarray(v) if v is not None else v for v in (call.get("min", float), call.get("max", float)))
    for bound, fn in ((low, call.xp.maximum), (high, call.xp.minimum)):
        if bound is not None:
            x = fn(x, scalar_of("the bound", bound)).astype(x.dtype)
    return x


def relu(call: Call, x: Values) -> Values:
    """max(x, 0), with derivative 0 at 0."""
    return jax.nn.relu(x)


def leaky_relu(call: Call, x: Values) -> Values:
    """x where positive, alpha x elsewhere."""
    return jax.nn.leaky_relu(x, call.get("alpha", float, 0.01))


def prelu(call: Call, x: Values, slope: Values) -> Values:
    """x where positive, slope x elsewhere; the slope is broadcast to x."""
    x, slope = of_one_rank(x, slope)
    return jnp.where(x >= 0, x, slope * x)


def elu(call: Call, x: Values) -> Values:
    """x where positive, alpha (exp x - 1) elsewhere."""
    return jax.nn.elu(x, call.get("alpha", float, 1.0))


def selu(call: Call, x: Values) -> Values:
    """gamma x where positive, gamma alpha (exp x - 1) elsewhere."""
    return call.get("gamma", float, 1.0507009873554805) * jax.nn.elu(x, call.get("alpha", float, 1.6732632423543772))


def hard_sigmoid(call: Call, x: Values) -> Values:
    """min(max(alpha x + beta, 0), 1)."""
    return jnp.minimum(jnp.maximum(call.get("alpha", float, 0.2) * x + call.get("beta", float, 0.5), 0.0), 1.0)


def hard_swish(call: Call, x: Values) -> Values:
    """x min(max(x / 6 + 1/2, 0), 1)."""
    return x * jnp.minimum(jnp.maximum(x / 6 + 0.5, 0.0), 1.0)


def gelu(call: Call, x: Values) -> Values:
    """x times the normal distribution function, or its tanh approximation."""
    return jax.nn.gelu(x, approximate=call.one_of("approximate", ("none", "tanh"), "none") == "tanh")


def where(call: Call, condition: Values, a: Values, b: Values) -> Values:
    """a where the condition holds, b elsewhere."""
    if condition.dtype != np.bool_:
        raise OpError(f"has a condition of {condition.dtype}, not of truth values")
    return call.xp.where(*of_one_rank(condition, a, b))


def _only_of_jax(fn: Callable[[Values], Values]) -> Op:
    return Op(lambda call, x: fn(x))


OPS = {
    **{name: _unary(name.lower()) for name in "Exp Log Sqrt Sin Cos Tan Tanh Abs Sign Floor Ceil Round".split()},
    "Neg": Op(lambda call, x: -x, folds=True),
    "Reciprocal": Op(lambda call, x: 1 / x, folds=True),
    "Add": _binary(operator.add),
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": Op(div, folds=True),
    "Pow": Op(power, likes=(1,), folds=True),
    "Equal": _binary(operator.eq),
    "Greater": _binary(operator.gt),
    "GreaterOrEqual": _binary(operator.ge),
    "Less": _binary(operator.lt),
    "LessOrEqual": _binary(operator.le),
    "And": _logical("logical_and"),
    "Or": _logical("logical_or"),
    "Not": _logical("logical_not"),
    "Max": _variadic("maximum"),
    "Min": _variadic("minimum"),
    "Sum": _variadic("add"),
    "Mean": Op(mean),
    "Where": Op(where, folds=True),
    "Clip": Op(clip, needs=(1, 2), folds=True),
    "Relu": Op(relu),
    "LeakyRelu": Op(leaky_relu),
    "PRelu": Op(prelu),
    "Elu": Op(elu),
    "Selu": Op(selu),
    "Gelu": Op(gelu),
    "HardSigmoid": Op(hard_sigmoid),
    "HardSwish": Op(hard_swish),
    "Sigmoid": _only_of_jax(jax.nn.sigmoid),
    "Softplus": _only_of_jax(jax.nn.softplus),
    "Softsign": _only_of_jax(lambda x: x / (1 + abs(x))),
    "Erf": _only_of_jax(jax.lax.erf),
}
