"""The arithmetic of sliding windows: strides, dilations, pads, `auto_pad` and `ceil_mode` of convolutions and pools."""

from collections.abc import Sequence
from typing import NamedTuple

from robustgen.exchange.ops.call import Call, OpError

_SMALL = 2**24  # more than any size, stride or pad of a real network


class Window(NamedTuple):
    """A window over spatial axes; all of one length. `reaches` are the dilated sizes."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def reaches(self) -> tuple[int, ...]:
        return tuple((size - 1) * dilation + 1 for size, dilation in zip(self.sizes, self.dilations, strict=True))


def window(call: Call, sizes: Sequence[int]) -> Window:
    """The window of `sizes` with a node's strides and dilations. Raises `OpError`."""
    ones = (1,) * len(sizes)
    form = Window(tuple(sizes), call.integers("strides", ones), call.integers("dilations", ones))
    for name, values in form._asdict().items():
        if len(values) != len(sizes) or not all(0 < value < _SMALL for value in values):
            raise OpError(f"has {name} {list(values)[:8]} for {len(sizes)} spatial axes; one an axis, positive")
    return form


def padding(call: Call, form: Window, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The pads (low, high) of each spatial axis, given or by `auto_pad`. Raises `OpError`."""
    rank = len(form.sizes)
    if len(sizes) != rank:
        raise OpError(f"slides over {rank} spatial axes; there are {len(sizes)}")
    mode = call.one_of("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    pads = call.integers("pads", (0,) * 2 * rank)
    if len(pads) != 2 * rank or not all(0 <= pad < _SMALL for pad in pads):
        raise OpError(f"has pads {list(pads)[:8]}; they are {2 * rank} numbers, not negative")
    if mode == "NOTSET":
        return list(zip(pads[:rank], pads[rank:], strict=True))
    if mode == "VALID":
        return [(0, 0)] * rank
    found = []
    for size, stride, reach in zip(sizes, form.strides, form.reaches, strict=True):
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        smaller, larger = total // 2, total - total // 2
        found.append((smaller, larger) if mode == "SAME_UPPER" else (larger, smaller))
    return found


def ceiled(form: Window, sizes: Sequence[int], pads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pads with which whole windows are those of `ceil_mode`: the last one may reach beyond the end.

    A window that would begin beyond the input, in the padding after it, is left out.
    """
    grown = []
    for size, stride, reach, (low, high) in zip(sizes, form.strides, form.reaches, pads, strict=True):
        windows = -(-(size + low + high - reach) // stride) + 1
        if (windows - 1) * stride >= size + low:
            windows -= 1
        grown.append((low, max(0, (windows - 1) * stride + reach - size - low)))
    return grown
