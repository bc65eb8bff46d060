"""Matrix products and convolutions, always at the highest precision: what is verified is the net in full float32."""

import jax.numpy as jnp
from jax import lax

from robustgen.exchange.ops.call import Call, Op, OpError, Values
from robustgen.exchange.ops.elementwise import of_one_rank
from robustgen.exchange.ops.windows import Window, padding, window

_PRECISION = lax.Precision.HIGHEST


def matmul(call: Call, a: Values, b: Values) -> Values:
    """NumPy's product of matrices, with leading axes broadcast."""
    return jnp.matmul(a, b, precision=_PRECISION)


def gemm(call: Call, a: Values, b: Values, c: Values | None = None) -> Values:
    """alpha op(a) op(b) + beta c."""
    if a.ndim != 2 or b.ndim != 2:
        raise OpError(f"multiplies matrices, not tensors of {a.ndim} and {b.ndim} axes")
    axes = (0 if call.flag("transA") else 1,), (1 if call.flag("transB") else 0,)
    y = _times(call.get("alpha", float, 1.0), lax.dot_general(a, b, (axes, ((), ())), precision=_PRECISION))
    beta = call.get("beta", float, 1.0)
    if c is None:
        return y
    total = jnp.add(*of_one_rank(y, _times(beta, c)))
    if total.shape != y.shape:
        raise OpError(f"adds a tensor of shape {list(c.shape)} to one of {list(y.shape)}")
    return total


def conv(call: Call, x: Values, w: Values, bias: Values | None = None) -> Values:
    """Cross-correlation, channels first, any number of spatial axes."""
    form, groups = _kernel(call, x, w), call.get("group", int, 1)
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise OpError(f"has {groups} groups, {x.shape[1]} channels and a kernel of shape {list(w.shape)}")
    y = lax.conv_general_dilated(
        x,
        w,
        form.strides,
        padding(call, form, x.shape[2:]),
        rhs_dilation=form.dilations,
        dimension_numbers=_channels_first(x.ndim),
        feature_group_count=groups,
        precision=_PRECISION,
    )
    return _biased(y, bias)


def conv_transpose(call: Call, x: Values, w: Values, bias: Values | None = None) -> Values:
    """The transpose of a convolution: the input spread by the strides, correlated with the mirrored kernel."""
    form, groups = _kernel(call, x, w), call.get("group", int, 1)
    if groups < 1 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise OpError(f"has {groups} groups, {x.shape[1]} channels and a kernel of shape {list(w.shape)}")
    inner = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)  # groups, out, in, ...
    mirrored = jnp.flip(inner.reshape(groups * w.shape[1], -1, *w.shape[2:]), tuple(range(2, w.ndim)))
    y = lax.conv_general_dilated(
        x,
        mirrored,
        (1,) * len(form.sizes),
        _transposed_padding(call, form, x.shape[2:]),
        lhs_dilation=form.strides,
        rhs_dilation=form.dilations,
        dimension_numbers=_channels_first(x.ndim),
        feature_group_count=groups,
        precision=_PRECISION,
    )
    return _biased(y, bias)


def _transposed_padding(call: Call, form: Window, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Padding of the spread input. `pads` cut the result, `output_padding` adds at its end.

    Where `output_shape` or SAME_* is given, the pads follow from it as the specification says: half at either end, the
    odd one at the end for SAME_UPPER and at the beginning otherwise.
    """
    rank = len(sizes)
    extra = call.integers("output_padding", (0,) * rank)
    wanted = call.integers("output_shape")
    mode = call.one_of("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    pads = call.integers("pads", (0,) * 2 * rank)
    if len(extra) != rank or len(pads) != 2 * rank or len(wanted or sizes) != rank or min(*pads, *extra) < 0:
        raise OpError("has pads, output_padding or output_shape of the wrong length, or negative")
    if mode.startswith("SAME") and wanted is None:
        wanted = tuple(size * stride for size, stride in zip(sizes, form.strides, strict=True))
    cut = list(zip(pads[:rank], pads[rank:], strict=True)) if mode == "NOTSET" else [(0, 0)] * rank
    full = [
        stride * (size - 1) + more + reach
        for size, stride, more, reach in zip(sizes, form.strides, extra, form.reaches, strict=True)
    ]
    if wanted is not None:
        totals = [have - want for have, want in zip(full, wanted, strict=True)]
        if min(totals) < 0:
            raise OpError(f"has output_shape {list(wanted)}, more than the {full} that there are")
        halves = [(total // 2, total - total // 2) for total in totals]
        cut = halves if mode == "SAME_UPPER" else [half[::-1] for half in halves]
    return [
        (reach - 1 - low, reach - 1 - high + more)
        for (low, high), more, reach in zip(cut, extra, form.reaches, strict=True)
    ]


def _kernel(call: Call, x: Values, w: Values) -> Window:
    if x.ndim < 3 or w.ndim != x.ndim:
        raise OpError(f"convolves tensors of shape {list(x.shape)} and {list(w.shape)}; they need 3 axes or more")
    if 0 in w.shape:
        raise OpError(f"has an empty kernel of shape {list(w.shape)}")
    if call.integers("kernel_shape", w.shape[2:]) != w.shape[2:]:
        raise OpError(f"has kernel_shape {list(call.integers('kernel_shape'))} and a kernel of shape {list(w.shape)}")
    return window(call, w.shape[2:])


def _biased(y: Values, bias: Values | None) -> Values:
    if bias is None:
        return y
    if bias.shape != (y.shape[1],):
        raise OpError(f"has a bias of shape {list(bias.shape)} for {y.shape[1]} channels")
    return y + bias.reshape(1, -1, *(1,) * (y.ndim - 2))


def _channels_first(rank: int) -> lax.ConvDimensionNumbers:
    axes = tuple(range(rank))
    return lax.ConvDimensionNumbers(axes, axes, axes)


def _times(factor: float, x: Values) -> Values:
    """factor x; by 1 nothing is done, which spares verifiers a product."""
    return x if factor == 1.0 else factor * x


OPS = {
    "MatMul": Op(matmul),
    "Gemm": Op(gemm),
    "Conv": Op(conv),
    "ConvTranspose": Op(conv_transpose),
}
