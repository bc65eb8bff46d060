"""Textbook CROWN against a float64 oracle of dense matrices, on every kind of convolution, as windows and dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen import threats
from robustgen.certify import patches, rows
from robustgen.certify.crown import crown_margins, every

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def weight(seed, *shape):
    """Normal numbers, of variance 4 / fan-in where the last axis is the one of results."""
    return 2 * np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def conv(x, kernel, stride=(1, 1), padding="SAME", dilation=(1, 1), groups=1, layout=NHWC):
    kernel = jnp.asarray(kernel, x.dtype)
    made = lax.conv_general_dilated(x, kernel, stride, padding, None, dilation, layout, groups)
    bias = np.linspace(-0.1, 0.1, made.shape[layout[2].index("C")]).reshape([-1 if c == "C" else 1 for c in layout[2]])
    return made + jnp.broadcast_to(jnp.asarray(bias, x.dtype), made.shape)


def logits(*maps):
    """Three classes from all of the given maps."""
    flat = jnp.concatenate([m.reshape(m.shape[0], -1) for m in maps], 1)
    return (flat @ jnp.asarray(weight(99, flat.shape[1], 3), flat.dtype) + 0.1,)


def pooled(x, size, stride, padding):
    total = lax.reduce_window(x, 0.0, lax.add, (1, *size, 1), (1, *stride, 1), ((0, 0), *padding, (0, 0)))
    return total / np.prod(size).astype(float)


def folded(x):
    """Batch norm with its statistics folded into a scale and a shift."""
    scale, shift = 1 + weight(7, x.shape[-1]) / 4, weight(8, x.shape[-1]) / 20
    return x * jnp.broadcast_to(jnp.asarray(scale, x.dtype), x.shape) + jnp.broadcast_to(jnp.asarray(shift), x.shape)


# A net is a list of affine stages, tuple of maps -> tuple of maps; after each but the last, relu of the first map.
NETS = {
    "same": [
        lambda x: (conv(x, weight(1, 3, 3, 2, 3)),),
        lambda x: (conv(x, weight(2, 3, 3, 3, 2)),),
        logits,
    ],
    "strided_asymmetric": [
        lambda x: (conv(x, weight(1, 2, 3, 2, 3), (1, 1), ((0, 1), (2, 0))),),
        lambda x: (conv(x, weight(2, 3, 2, 3, 3), (2, 2), ((1, 0), (0, 2))),),
        lambda x: (conv(x, weight(3, 2, 2, 3, 2), (1, 2), ((0, 0), (2, 1))),),
        logits,
    ],
    "valid_dilated": [
        lambda x: (conv(x, weight(1, 2, 3, 2, 3), padding="VALID"),),
        lambda x: (conv(x, weight(2, 2, 2, 3, 3), padding=((1, 0), (0, 1)), dilation=(2, 2)),),
        lambda x: (conv(x, weight(3, 2, 2, 3, 2), (2, 1), "VALID", dilation=(1, 2)),),
        logits,
    ],
    "grouped_depthwise": [
        lambda x: (conv(x, weight(1, 3, 3, 1, 4), groups=2),),
        lambda x: (conv(x, weight(2, 2, 2, 2, 4), (2, 1), groups=2),),
        lambda x: (conv(x, weight(3, 2, 2, 1, 8), groups=4),),
        logits,
    ],
    "channels_first": [
        lambda x: (conv(jnp.transpose(x, (0, 3, 1, 2)), weight(1, 3, 2, 3, 2).transpose(0, 1, 3, 2), layout=NCHW),),
        lambda x: (conv(x, weight(2, 3, 3, 2, 2), (1, 2), ((1, 0), (0, 1)), layout=NCHW),),
        lambda x: (conv(x, weight(3, 2, 3, 3, 2), (1, 1), "VALID", layout=(*NCHW[:2], "NHWC")),),
        logits,
    ],
    "linear_between_and_batch_norm": [
        lambda x: (folded(conv(conv(x, weight(1, 2, 2, 2, 3)), weight(2, 2, 2, 3, 3), (1, 2))),),
        lambda x: (folded(conv(folded(conv(x, weight(3, 2, 2, 3, 4))), weight(4, 3, 1, 4, 2), (2, 1), "VALID")),),
        lambda x: (conv(x, weight(5, 2, 2, 2, 3)) - 0.1,),
        logits,
    ],
    "residual": [
        lambda x: (conv(x, weight(1, 3, 3, 2, 3)),),
        lambda x: (conv(x, weight(2, 3, 3, 3, 4), (2, 2)), x),
        lambda z, x: (conv(z, weight(3, 2, 2, 4, 4)) + conv(x, weight(4, 1, 1, 3, 4), (2, 2)),),
        lambda x: (conv(x, weight(5, 2, 2, 4, 4)), x),
        lambda z, x: (conv(z, weight(6, 2, 2, 4, 4)) - x,),
        logits,
    ],
    "average_pool_and_concatenation": [
        lambda x: (conv(x, weight(1, 2, 2, 2, 3)),),
        lambda x: (conv(pooled(x, (3, 2), (2, 1), ((1, 1), (0, 1))), weight(2, 2, 2, 3, 2)), x[:, ::2]),
        lambda z, x: (conv(jnp.concatenate([z, x], 3), weight(3, 2, 2, 5, 2), (1, 2), "VALID"), z),
        logits,
    ],
    "kernel_larger_than_the_map": [
        lambda x: (conv(x[:, 2:5, :3], 2 * weight(1, 5, 5, 2, 3)),),
        lambda x: (conv(x, 2 * weight(2, 5, 4, 3, 3), (2, 1), ((3, 2), (2, 2))),),
        lambda x: (conv(x, 2 * weight(3, 7, 7, 3, 2), (3, 3), ((4, 5), (6, 3))),),
        logits,
    ],
}
SHAPE, Y = (8, 7, 2), np.array([0, 2], np.int32)


def chained(stages):
    def net(x):
        maps = (x,)
        for stage in stages[:-1]:
            first, *others = stage(*maps)
            maps = (jax.nn.relu(first), *others)
        return stages[-1](*maps)[0]

    return net


def matrices(stages, shape):
    """(W [m, n], b [m], number of the first rows that relu follows) of each stage, by its values at 0 and at e_i."""
    shapes, found = [shape], []
    for stage in stages:
        sizes = [int(np.prod(s)) for s in shapes]
        points = np.concatenate([np.zeros((1, sum(sizes))), np.eye(sum(sizes))])
        parts = np.split(points, np.cumsum(sizes)[:-1], 1)
        made = stage(*(jnp.asarray(p.reshape(-1, *s)) for p, s in zip(parts, shapes, strict=True)))
        values = np.concatenate([np.asarray(m).reshape(len(points), -1) for m in made], 1)
        shapes = [m.shape[1:] for m in made]
        found.append(((values[1:] - values[0]).T, values[0], int(np.prod(shapes[0]))))
    return found


def least(layers, lines, c, low, high):
    """Lower bounds of the rows c of the last layer's results: `lines` are the relus' (below, chord, shift)."""
    offset = np.zeros(len(c))
    for i in reversed(range(len(layers))):
        w, b, _ = layers[i]
        offset, c = offset + c @ b, c @ w
        if i:
            below, chord, shift = lines[i - 1]
            plus, minus = np.maximum(c, 0), np.minimum(c, 0)
            offset, c = offset + minus @ shift, plus * below + minus * chord
    return offset + np.maximum(c, 0) @ low + np.minimum(c, 0) @ high


def textbook(layers, low, high, y):
    """Margins of one example by Zhang et al. 2018, the bounds of every pre-activation by the same backward pass."""
    lines = []
    for i in range(1, len(layers)):
        size, followed = len(layers[i - 1][1]), np.arange(len(layers[i - 1][1])) < layers[i - 1][2]
        lower, upper = (s * least(layers[:i], lines, s * np.eye(size), low, high) for s in (1, -1))
        crossing = (lower < 0) & (upper > 0)
        assert np.any(crossing & followed)  # or the net would try nothing
        chord = np.where(crossing, upper / np.where(crossing, upper - lower, 1), lower >= 0)
        below = np.where(crossing, upper > -lower, lower >= 0)
        chord, below = (np.where(followed, slope, 1.0) for slope in (chord, below))
        lines.append((below, chord, np.where(crossing & followed, -lower * chord, 0.0)))
    classes = np.eye(len(layers[-1][1]))
    return least(layers, lines, classes[[y]] - classes, low, high)


def around(seed, shape, eps, dtype=float):
    """Two boxes."""
    centre = np.random.default_rng(seed).uniform(size=(2, *shape))
    radius = eps * np.random.default_rng(seed + 1).uniform(0.5, 1, size=(2, *shape))
    return jnp.asarray(centre - radius, dtype), jnp.asarray(centre + radius, dtype)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("windowed", [True, False], ids=["windows", "dense"])
def test_textbook_crown(name, windowed, monkeypatch, x64):
    kept = []
    if windowed:
        through = patches.through
        monkeypatch.setattr(patches, "through", lambda *args: kept.append(through(*args)) or kept[-1])
    else:
        monkeypatch.setattr(rows, "_map_axes", lambda *_: None)
    low, high = around(0, SHAPE, 0.12)
    net = chained(NETS[name])
    ours = jax.jit(lambda *ends: crown_margins(net, sum(ends) / 2, Y, threats.box(*ends), every()))(low, high)
    layers = matrices(NETS[name], SHAPE)
    ends = (np.asarray(end).reshape(2, -1) for end in (low, high))
    hand = np.stack([textbook(layers, *row) for row in zip(*ends, Y, strict=True)])
    np.testing.assert_allclose(ours, hand, rtol=1e-9, atol=1e-9 * np.abs(hand).max())
    assert any(p is not None for p in kept) == (windowed and name != "kernel_larger_than_the_map")
