"""Convolutions and their derivatives inside a loop on the CPU: ours in their two forms, per shape of layer.

    python experiments/benchmarks/conv_forms.py

CPU milliseconds a call at batch 128, least of a few. Canonical writes every derivative as a convolution; ours does so
above `FEW_CHANNELS` (robustgen/models/conv.py) input channels, and takes sums and matrix products below.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.core import Array
from robustgen.models import conv

# side, channels, features, kernel size, padding, stride
LAYERS = {
    "SmallCNN 1": (28, 1, 32, 3, 0, 1),
    "SmallCNN 2": (26, 32, 32, 3, 0, 1),
    "SmallCNN 4": (10, 64, 64, 3, 0, 1),
    "Wong 1": (28, 1, 16, 4, 1, 2),
    "Wong 2": (14, 16, 32, 4, 1, 2),
    "ResNet-8 stem": (32, 3, 16, 3, 1, 1),
    "ResNet-8 block 1": (32, 16, 16, 3, 1, 1),
    "ResNet-8 block 2": (32, 16, 32, 3, 1, 2),
}
LENGTH, REPEATS = 3, 3


def main() -> None:
    names = ("value", "input", "kernel")
    print(f"{'':18}" + "".join(f"{form + ' ' + name:>18}" for form in ("ours", "canonical") for name in names))
    for layer, (side, channels, features, size, padding, stride) in LAYERS.items():
        x = jax.random.normal(jax.random.key(0), (128, side, side, channels))
        kernel = jax.random.normal(jax.random.key(1), (size, size, channels, features))
        few, row = conv.FEW_CHANNELS, []
        for conv.FEW_CHANNELS in (few, 0):
            convolve = lambda x, kernel: conv.conv2d(x, kernel, stride=stride, padding=((padding,) * 2,) * 2)  # noqa: E731, B023
            row += [milliseconds(call, x, kernel, jnp.ones_like(convolve(x, kernel))) for call in calls(convolve)]
        conv.FEW_CHANNELS = few
        print(f"{layer:18}" + "".join(f"{value:18.1f}" for value in row), flush=True)


def calls(convolve: Callable) -> list[Callable]:
    """Value as computed for a gradient, gradient with respect to the input, and to the kernel."""
    return [
        lambda x, kernel, g: jax.vjp(convolve, x, kernel)[0],
        lambda x, kernel, g: jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0],
        lambda x, kernel, g: jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](g)[0],
    ]


def milliseconds(call: Callable, *arrays: Array) -> float:
    """CPU time of one `call` in a loop whose every turn needs the one before."""

    def many(*arrays: Array) -> Array:
        step = lambda _, y: call(*(a + 1e-20 * y.ravel()[0] for a in arrays))  # noqa: E731
        return jax.lax.fori_loop(0, LENGTH, step, jnp.zeros_like(call(*arrays)))

    loop = jax.jit(many).lower(*arrays).compile()
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.process_time()
        jax.block_until_ready(loop(*arrays))
        seconds.append(time.process_time() - began)
    return min(seconds) / LENGTH * 1e3


if __name__ == "__main__":
    main()
