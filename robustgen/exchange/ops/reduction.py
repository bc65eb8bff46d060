"""Sums, means and extremes over axes, softmax, and normalisation with fixed or with its own statistics."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.exchange.ops.call import Call, Op, OpError, Values, axes_in, axis_in, integers_of
from robustgen.exchange.ops.elementwise import of_one_rank


def _reduction(name: str, since: int) -> Op:
    """What arrays have as a method; `axes` is an attribute before opset `since`, an input from it on."""

    def reduce(call: Call, x: Values, axes: np.ndarray | None = None) -> Values:
        chosen = call.integers("axes") if call.opset < since else None if axes is None else integers_of("axes", axes)
        keep = call.flag("keepdims", 1)
        nothing = call.opset >= since and call.flag("noop_with_empty_axes")
        if not chosen:
            if nothing:
                return x
            chosen = range(x.ndim)
        along = axes_in(chosen, x.ndim)
        if name in ("max", "min", "mean") and not all(x.shape[axis] for axis in along):
            raise OpError(f"reduces nothing, an input of shape {list(x.shape)}")
        reduced = getattr(x, name)(along, keepdims=keep)
        return np.asarray(reduced, x.dtype) if call.xp is np else reduced

    return Op(reduce, needs=(1,), folds=True)


def softmax(call: Call, x: Values) -> Values:
    """Softmax along `axis`; before opset 13 over all axes from it on together."""
    return _over_axis(call, x, jax.nn.softmax)


def log_softmax(call: Call, x: Values) -> Values:
    """The logarithm of softmax."""
    return _over_axis(call, x, jax.nn.log_softmax)


def _over_axis(call: Call, x: Values, fn) -> Values:
    axis = axis_in(call.get("axis", int, 1 if call.opset < 13 else -1), x.ndim)
    if call.opset >= 13:
        return fn(x, axis)
    together = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return fn(together, -1).reshape(x.shape)


def batch_normalization(
    call: Call, x: Values, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> Values:
    """Normalisation of channels by the file's statistics: one product and one sum, folded in float64."""
    call.get("momentum", float)
    call.one_of("spatial", (1,), 1)
    call.one_of("training_mode", (0,), 0)
    shapes = {array.shape for array in (scale, bias, mean, variance)}
    if x.ndim < 2 or shapes != {(x.shape[1],)}:
        raise OpError(f"has parameters of shapes {sorted(shapes)} for an input of shape {list(x.shape)}")
    variance = variance.astype(np.float64) + call.get("epsilon", float, 1e-5)
    if not np.all(variance > 0):
        raise OpError("has a variance that is not positive")
    factor = scale / np.sqrt(variance)
    factor, shift = (
        jnp.asarray(v, x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2)) for v in (factor, bias - mean * factor)
    )
    return x * factor + shift


def layer_normalization(call: Call, x: Values, scale: Values, bias: Values | None = None) -> Values:
    """Normalisation by mean and variance over the axes from `axis` on. Only the result, no statistics."""
    call.one_of("stash_type", (1,), 1)
    axes = tuple(range(axis_in(call.get("axis", int, -1), x.ndim), x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    y = centred / jnp.sqrt(variance + call.get("epsilon", float, 1e-5))
    for name, parameter in (("scale", scale), ("bias", bias)):
        sizes = () if parameter is None else (1,) * (x.ndim - parameter.ndim) + tuple(parameter.shape)
        if parameter is not None and any(size not in (1, whole) for size, whole in zip(sizes, x.shape, strict=True)):
            raise OpError(f"has a {name} of shape {list(parameter.shape)} for an input of shape {list(x.shape)}")
    y = jnp.multiply(*of_one_rank(y, scale))
    return y if bias is None else jnp.add(*of_one_rank(y, bias))


OPS = {
    "ReduceSum": _reduction("sum", since=13),
    **{f"Reduce{name}": _reduction(name.lower(), since=18) for name in ("Mean", "Max", "Min", "Prod")},
    "Softmax": Op(softmax),
    "LogSoftmax": Op(log_softmax),
    "BatchNormalization": Op(batch_normalization, needs=(1, 2, 3, 4)),
    "LayerNormalization": Op(layer_normalization),
}
