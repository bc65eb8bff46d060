"""How far float32 arithmetic may be off: the error of one primitive against its exact function of the same operands.

The model of the arithmetic, u = 2^-24 (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapters 2 to 4):
add, sub, mul and fused multiply-add round to nearest; a sum of n products is computed in any order, fused or not, which
is off by at most gamma_n = n u / (1 - n u) times the sum of their absolute values; div, sqrt and rsqrt are off by at
most 4 units in the last place and elementary functions by the units in `CURVES`, or by as much of the scale named there
(a logistic made of tanh has an absolute error). Numbers below 2^-126 may be taken for zero, as XLA does. Not covered,
and known to be off by more: TF32 and bfloat16 products (`trace` asks for the highest precision, and the network must be
run at it), Winograd and Fourier convolutions. A primitive without an entry is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from robustgen.certify.interpreter import Equation, UnknownPrimitive
from robustgen.core import Array, Interval

U = 2.0**-24
TINY = 2.0**-126
LARGEST = 2.0**127
"""Values that come near this may overflow on the way: their error is infinite."""

NOISE = 2.0**-32
"""What float64 may lose where bounds are computed, relative to the terms of a sum: up to 2^20 of them."""

_DIVISION = 8 * U  # 4 units in the last place, each at most 2 u of the value

COPIES = frozenset(
    """reshape transpose slice squeeze rev expand_dims copy copy_p pad concatenate split unstack neg
    stop_gradient optimization_barrier""".split()
)
"""Their results are entries of their operands and nothing else, each at most once."""

REPEATS = frozenset("broadcast_in_dim tile stack gather dynamic_slice select_n".split())
COMPARISONS = frozenset("gt ge lt le eq ne".split())
_SUMS = frozenset("reduce_sum cumsum reduce_window_sum".split())
_PRODUCTS = frozenset("dot_general conv_general_dilated".split())

CHOICES = frozenset(
    """max min reduce_max reduce_min cummax cummin clamp abs sort relu6 hard_tanh convert_element_type""".split()
)
"""They pick one of some numbers: exact, but for those taken for zero."""


class Curve(NamedTuple):
    """units: of 2^-23 times the size of the value, or of scale(operand's size, value's size) where that is more;
    floor: absolute; least: what a positive operand must not come below, for its being taken for zero to be of no
    effect."""

    units: int
    scale: Callable[[Array, Array], Array] = lambda x, value: value
    floor: float = TINY
    least: float | None = None


def _one(x: Array, value: Array) -> Array:
    return jnp.ones_like(x)


def _length(x: Array, value: Array) -> Array:
    return 1 + x


CURVES: Mapping[str, Curve] = {
    **{name: Curve(8) for name in ("exp", "expm1", "log1p")},
    "exp2": Curve(8, lambda x, value: (1 + x) * value),  # XLA multiplies x by log 2 first
    **{name: Curve(16, _one) for name in ("tanh", "logistic", "erf", "erfc", "sin", "cos")},
    **{name: Curve(16, _length) for name in ("softplus", "elu", "celu", "selu", "silu", "hard_silu", "gelu")},
    "log": Curve(8, _one, least=TINY),
    "log2": Curve(8, _one, least=TINY),
    "sqrt": Curve(4, floor=2.0**-62),
    "rsqrt": Curve(4, least=TINY),
    "leaky": Curve(2),
    "leaky_relu": Curve(2),
    "square": Curve(1),
}


class Error(NamedTuple):
    """size: at least the sum of the absolute values of the terms that an entry of the result is made of; off: how far
    the computed entry may be from the exact one; both of the result's shape."""

    size: Array
    off: Array


def sizes(operand: Interval | Array, doubt: Array | None = None) -> Array:
    """The largest absolute value of an operand; `doubt` is how far an exact one may be off."""
    if isinstance(operand, Interval):
        return jnp.maximum(jnp.abs(operand.lower), jnp.abs(operand.upper))
    return jnp.abs(operand) if doubt is None else jnp.abs(operand) + doubt


def gamma(n: int) -> float:
    """Higham's constant of n roundings."""
    return n * U / (1 - n * U) if n * U < 0.5 else math.inf


def errors(
    equation: Equation, operands: Sequence[Interval | Array], doubts: Sequence[Array | None], results: list[Interval]
) -> list[Error]:
    """The error of each result of an equation whose operands are within intervals, or exact up to their doubt.

    Raises `UnknownPrimitive` where the model does not cover it.
    """
    name = equation.name
    if name in COPIES or name in REPEATS:
        return _moved(equation, operands, doubts)
    (result,) = results
    known = [sizes(operand, doubt) for operand, doubt in zip(operands, doubts, strict=True)]
    if name in CHOICES:
        if not all(map(is_real, operands)):
            raise UnknownPrimitive(name, "of numbers that are not real is not covered in float32")
        off = sum((d for d in doubts if d is not None), jnp.zeros(())) + TINY
        return [Error(*jnp.broadcast_arrays(sizes(result), off))]
    if name in _ARITHMETIC:
        return [_limited(_ARITHMETIC[name](equation, known, doubts, sizes(result), operands))]
    if name not in CURVES or any(d is not None for d in doubts):
        raise UnknownPrimitive(name, "has no bound of its rounding error in float32")
    return [_limited(_curve(CURVES[name], equation, operands, known, sizes(result)))]


def _moved(equation: Equation, operands, doubts) -> list[Error]:
    def apply(values: Sequence[Array]) -> list[Array]:
        """Truth values and positions go as they are."""
        kept = [v if is_real(o) else o for v, o in zip(values, operands, strict=True)]
        return [jnp.abs(v) for v in equation.plain(*kept)]

    if any(isinstance(o, Interval) and not is_real(o) for o in operands):  # a choice that is not decided
        known = [sizes(o, d) for o, d in zip(operands[1:], doubts[1:], strict=True)]
        off = sum((d for d in doubts if d is not None), jnp.zeros(()))
        return [Error(*jnp.broadcast_arrays(sum(known), off))]
    size = apply([sizes(o, d) if is_real(o) else o for o, d in zip(operands, doubts, strict=True)])
    zeros = [jnp.zeros_like(_end(o)) if d is None else d for o, d in zip(operands, doubts, strict=True)]
    off = apply(zeros) if any(d is not None for d in doubts) else [jnp.zeros_like(s) for s in size]
    return [Error(*pair) for pair in zip(size, off, strict=True)]


def is_real(operand: Interval | Array) -> bool:
    """Whether an operand holds floating-point numbers."""
    return jnp.issubdtype(_end(operand).dtype, jnp.floating)


def _end(operand: Interval | Array) -> Array:
    return operand.lower if isinstance(operand, Interval) else jnp.asarray(operand)


def _sum(equation: Equation, known, doubts, result: Array, operands) -> Error:
    size = known[0] + known[1]
    off = sum((d for d in doubts if d is not None), jnp.zeros(()))
    return Error(size, U * jnp.minimum(size, result) + off + TINY)


def _mul(equation: Equation, known, doubts, result: Array, operands) -> Error:
    size = known[0] * known[1]
    off = sum((known[1 - i] * d for i, d in enumerate(doubts) if d is not None), jnp.zeros(()))
    return Error(size, U * size + off + TINY * (1 + known[0] + known[1]))


def _div(equation: Equation, known, doubts, result: Array, operands) -> Error:
    divisor, doubt = _least(operands[1]), 0.0 if doubts[1] is None else doubts[1]
    safe = divisor - doubt > 2 * TINY
    least, divisor = (jnp.where(safe, v, 1.0) for v in (divisor - doubt, divisor))
    size = jnp.where(safe, known[0] / least, jnp.inf)
    off = size * doubt / divisor + (0.0 if doubts[0] is None else doubts[0] / least)
    return Error(size, _DIVISION * size + off + TINY * (1 + 1 / least))


def _product(equation: Equation, known, doubts, result: Array, operands) -> Error:
    n = _terms(equation, [k.shape for k in known])
    (size,) = equation.plain(*known)
    (rounded,) = equation.plain(*(k + TINY / U for k in known))  # of numbers taken for zero, too
    off = gamma(n) * rounded + 2 * n * TINY
    for i, doubt in enumerate(doubts):
        if doubt is not None:
            off = off + equation.plain(*(doubt if i == j else k for j, k in enumerate(known)))[0]
    return Error(size, off)


def _reduced(equation: Equation, known, doubts, result: Array, operands) -> Error:
    (size,) = equation.plain(known[0])
    n = _terms(equation, [known[0].shape])
    off = gamma(n) * size + n * TINY
    return Error(size, off if doubts[0] is None else off + equation.plain(doubts[0])[0])


def _terms(equation: Equation, shapes: Sequence[tuple[int, ...]]) -> int:
    """How many numbers are added up for one entry of the result."""
    params = equation.params
    if equation.name == "dot_general":
        return math.prod(shapes[0][axis] for axis in params["dimension_numbers"][0][0]) or 1
    if equation.name == "conv_general_dilated":
        return math.prod(shapes[1]) // shapes[1][params["dimension_numbers"].rhs_spec[0]]
    if equation.name == "reduce_window_sum":
        return math.prod(params["window_dimensions"])
    return shapes[0][params["axis"]] if equation.name == "cumsum" else math.prod(shapes[0][a] for a in params["axes"])


def _integer_pow(equation: Equation, known, doubts, result: Array, operands) -> Error:
    y = equation.params["y"]
    if any(d is not None for d in doubts):
        raise UnknownPrimitive(equation.name, "has no bound of its rounding error in float32")
    off = gamma(abs(y) + 12) * result
    if y >= 0:
        return Error(result, off + TINY * (1 + known[0]) ** y)
    least = _least(operands[0])  # no power on the way may be taken for zero
    return Error(result, jnp.where(jnp.minimum(least, least ** abs(y)) > 2 * TINY, off + TINY, jnp.inf))


def _least(operand: Interval | Array) -> Array:
    """The smallest absolute value of an operand."""
    if not isinstance(operand, Interval):
        return jnp.abs(operand)
    inside = (operand.lower <= 0) & (operand.upper >= 0)
    return jnp.where(inside, 0.0, jnp.minimum(jnp.abs(operand.lower), jnp.abs(operand.upper)))


def _curve(curve: Curve, equation: Equation, operands, known, result: Array) -> Error:
    """Extra operands (the slope of a leaky relu) are numbers; they scale what is made of the first."""
    size = jnp.maximum(result, curve.scale(known[0], result))
    for other in known[1:]:
        size = size * jnp.maximum(other, 1.0)
    off = curve.units * 2 * U * size + curve.floor * (1 + sum(known))
    if curve.least is not None:
        low = operands[0].lower if isinstance(operands[0], Interval) else operands[0]
        off = jnp.where(low > 2 * curve.least, off, jnp.inf)
    if equation.name in ("sin", "cos"):  # beyond this the argument's reduction loses digits
        off = jnp.where(known[0] < 1000.0, off, jnp.inf)
    return Error(size, off)


def _limited(error: Error) -> Error:
    """Infinite where a sum may overflow on the way."""
    size, off = jnp.broadcast_arrays(*error)
    fits = size + off < LARGEST
    return Error(size, jnp.where(fits, off, jnp.inf))


_ARITHMETIC: Mapping[str, Callable[..., Error]] = {
    **{name: _sum for name in ("add", "add_any", "sub")},
    **{name: _product for name in _PRODUCTS},
    **{name: _reduced for name in _SUMS},
    "mul": _mul,
    "div": _div,
    "integer_pow": _integer_pow,
}

COVERED = COPIES | REPEATS | CHOICES | COMPARISONS | CURVES.keys() | _ARITHMETIC.keys()
"""The primitives whose rounding is bounded."""
