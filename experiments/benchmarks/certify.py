"""CROWN and alpha-CROWN beside auto_LiRPA: CPU seconds an instance, and how tight the bounds are.

    taskset -c 0 python experiments/benchmarks/certify.py
    python experiments/benchmarks/certify.py --nets fc_256x4 kw_mnist --methods crown --cases=FOLDER

Both compute the same thing in the same process: lower bounds of the nine margins of each of a batch of boxes, in
float32, each with its default search for bounds between (auto_LiRPA: those of the neurons that interval arithmetic
leaves unstable, sparse_intermediate_bounds). After a first call, which compiles, calls alternate; the medians of
`--repeats` are printed. Nets: the dense ones and the convolutions of the VNN competition's mnistfc and oval21, Wong &
Kolter's MNIST net, a residual net after its resnet_2b. They have random weights, or for `mnistfc_256x2` and `kw_mnist`
with `--cases` (weights, boxes and labels, as the tests of parity use) trained ones.

Measured with --cases and --repeats 3, auto_LiRPA 0.3 (the newest on PyPI) on torch 2.15, jax 0.12, batches of 10, one
pinned core of two, another job on the other; CPU ms an instance:

    net        CROWN theirs   ours  ratio    alpha-CROWN theirs   ours  ratio
    fc_256x2            5.8    2.0  2.85x                  23.7    4.5  5.27x
    fc_256x4           25.9   10.3  2.52x                  82.9   16.8  4.93x
    fc_256x6           47.8   18.0  2.65x                  87.5   22.2  3.95x
    kw_mnist           48.6   17.3  2.81x                 131.3   33.6  3.91x
    oval_base          51.3   19.5  2.63x                 117.2   38.7  3.03x
    oval_deep         190.7   86.7  2.20x                 501.6  126.1  3.98x
    resnet            203.4  104.4  1.95x                 321.9  125.9  2.56x

CROWN's bounds agree to rounding (on fc_256x2 ours are higher by 0.05 in the mean); alpha-CROWN's means to 2e-4, but for
fc_256x2 (-0.013, theirs -0.056). A batch of 32 against one example (--ours-only, kw_mnist): 31.4x the CPU time for
CROWN, 32.5x for alpha-CROWN, 56 and 73 MiB of temporary memory.
"""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from torch_certify import Margins, module
from torch_certify import alpha as their_alpha
from torch_certify import crown as their_crown

from robustgen import threats
from robustgen.certify.alpha import alpha_margins, ascent
from robustgen.certify.crown import crown_margins
from robustgen.core import Array

ASCENT = dict(num_steps=20, learning_rate=0.5, decay=0.98)
OURS = dict(num_steps=20, learning_rate=0.25, decay=0.98)
METHODS = ("crown", "alpha")
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)


class Case(NamedTuple):
    """A net, as `applied` takes it, and boxes [N, ...] around examples of label y [N]."""

    layers: Sequence
    lower: np.ndarray
    upper: np.ndarray
    y: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=pathlib.Path, help="folder of trained nets")
    parser.add_argument("--ours-only", action="store_true", help="batch 32 against 1, and memory, instead")
    args = parser.parse_args()
    print(f"{'net':14}{'method':7}{'theirs':>10}{'ours':>10}{'ratio':>8}{'  bounds: theirs':>16}{'ours':>9}{'worst':>9}"
          f"  verified    first call s")  # fmt: skip
    for name in args.nets:
        case = NETS[name](args.cases)
        for method in args.methods:
            if args.ours_only:
                scaling(name, method, case)
            else:
                compare(name, method, Case(case.layers, *(a[: args.batch] for a in case[1:])), args.repeats)


def compare(name: str, method: str, case: Case, repeats: int) -> None:
    """Prints a line: CPU ms an instance of both, and what they find."""
    theirs, ours = pair(method, case)
    begin = time.perf_counter()
    found = [theirs(*nchw(case)), ours(*case[1:])]
    first = time.perf_counter() - begin
    spent = [[], []]
    for _ in range(repeats):
        for side, call, given in ((0, theirs, nchw(case)), (1, ours, case[1:])):
            begin = time.process_time()
            call(*given)
            spent[side].append((time.process_time() - begin) / len(case.y))
    t, o = map(statistics.median, spent)
    verified = [np.sum(np.min(bounds, 1) > 0) for bounds in found]
    print(
        f"{name:14}{method:7}{1e3 * t:8.2f}ms{1e3 * o:8.2f}ms{t / o:7.2f}x{found[0].mean():16.4f}{found[1].mean():9.4f}"
        f"{np.min(found[1] - found[0]):9.4f}{verified[0]:5}{verified[1]:5}{first:14.1f}",
        flush=True,
    )


def scaling(name: str, method: str, case: Case) -> None:
    """Prints a line: CPU seconds of a batch of 32 over those of one example, and temporary memory."""
    seconds, memory = [], []
    for size in (1, 32):
        part = [np.resize(a, (size, *a.shape[1:])) for a in case[1:]]
        fn = jax.jit(bounds_of(method, case.layers))
        memory.append(fn.lower(*part).compile().memory_analysis().temp_size_in_bytes)
        jax.block_until_ready(fn(*part))
        times = []
        for _ in range(5):
            begin = time.process_time()
            jax.block_until_ready(fn(*part))
            times.append(time.process_time() - begin)
        seconds.append(statistics.median(times))
    print(f"{name:14}{method:7} batch 1: {1e3 * seconds[0]:.2f} ms, 32: {1e3 * seconds[1]:.2f} ms,"
          f" ratio {seconds[1] / seconds[0]:.1f}; memory {memory[0] / 2**20:.1f}, {memory[1] / 2**20:.1f} MiB",
          flush=True)  # fmt: skip


def pair(method: str, case: Case) -> tuple[Margins, Margins]:
    """The two sides of a comparison; ours on [B, H, W, C]."""
    fn = jax.jit(bounds_of(method, case.layers))

    def ours(lower: np.ndarray, upper: np.ndarray, y: np.ndarray) -> np.ndarray:
        margins = np.asarray(fn(lower, upper, y))
        return np.stack([np.delete(row, label) for row, label in zip(margins, y, strict=True)])

    net, example = module(case.layers), nchw(case)[0]
    return their_crown(net, example) if method == "crown" else their_alpha(net, example, **ASCENT), ours


def bounds_of(method: str, layers: Sequence) -> Callable[[Array, Array, Array], Array]:
    """(lower, upper, y) -> margins [B, K] by our code."""

    def margins(lower: Array, upper: Array, y: Array) -> Array:
        threat = threats.box(lower, upper)
        if method == "crown":
            return crown_margins(lambda x: applied(layers, x), lower, y, threat)
        return alpha_margins(lambda x: applied(layers, x), lower, y, threat, steps=ascent(**OURS))

    return margins


def nchw(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes as torch has them, and the labels."""
    moved = [np.ascontiguousarray(np.moveaxis(a, -1, 1)) if a.ndim == 4 else a for a in (case.lower, case.upper)]
    return *moved, case.y


def applied(layers: Sequence, x: Array) -> Array:
    """What a list of layers makes of x [B, H, W, C] or [B, D]."""
    for kind, *arguments in layers:
        if kind == "conv":
            w, b, stride, pad = arguments
            padding = [(pad, pad), (pad, pad)]
            x = jax.lax.conv_general_dilated(
                x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + b
        elif kind == "dense":
            x = x @ arguments[0] + arguments[1]
        elif kind == "sum":
            x = applied(arguments[0], x) + applied(arguments[1], x)
        else:
            x = jax.nn.relu(x) if kind == "relu" else x.reshape(x.shape[0], -1)
    return x


class Weights:
    """Draws layers with He's variance, and biases of a tenth of it."""

    def __init__(self, seed: int):
        self.draw = np.random.default_rng(seed)

    def conv(self, into: int, out: int, size: int, stride: int, pad: int) -> tuple:
        return "conv", *self.arrays((size, size, into, out)), stride, pad

    def dense(self, into: int, out: int) -> tuple:
        return "dense", *self.arrays((into, out))

    def arrays(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        w, b = self.draw.normal(size=shape) * scale, self.draw.normal(size=shape[-1:]) * scale / 10
        return w.astype(np.float32), b.astype(np.float32)


def random_case(layers: Sequence, shape: tuple[int, ...], eps: float, number: int = 32) -> Case:
    """Boxes of radius eps, within [0, 1], around uniform noise; labels are the net's own answers."""
    x = np.random.default_rng(1).random((number, *shape), np.float32)
    y = np.argmax(applied(layers, jnp.asarray(x)), 1).astype(np.int32)
    return Case(layers, np.maximum(x - np.float32(eps), 0), np.minimum(x + np.float32(eps), 1), y)


def fully_connected(depth: int, eps: float, trained: str | None = None) -> Callable[[pathlib.Path | None], Case]:
    """784 inputs and `depth` hidden layers of 256."""

    def case(folder: pathlib.Path | None) -> Case:
        if trained and folder:
            return stored(folder, trained)
        weights, sizes = Weights(0), [784, *[256] * depth, 10]
        dense = [weights.dense(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        return random_case([part for layer in dense for part in (layer, ("relu",))][:-1], (784,), eps)

    return case


def convolutional(
    shape: tuple[int, ...], convs: Sequence[tuple[int, int, int, int]], eps: float, trained: str | None = None
) -> Callable[[pathlib.Path | None], Case]:
    """Convolutions (features, size, stride, padding), then 100 and 10."""

    def case(folder: pathlib.Path | None) -> Case:
        if trained and folder:
            return stored(folder, trained)
        weights, (side, _, channels), layers = Weights(0), shape, []
        for out, size, stride, pad in convs:
            layers += [weights.conv(channels, out, size, stride, pad), ("relu",)]
            side, channels = (side + 2 * pad - size) // stride + 1, out
        flat = side * side * channels
        layers += [("flatten",), weights.dense(flat, 100), ("relu",), weights.dense(100, 10)]
        return random_case(layers, shape, eps)

    return case


def residual(folder: pathlib.Path | None) -> Case:
    """A stem and two blocks of 8 features at 16 x 16 and 8 x 8, then 100 and 10."""
    weights, relu = Weights(0), ("relu",)
    down = [weights.conv(8, 8, 3, 2, 1), relu, weights.conv(8, 8, 3, 1, 1)], [weights.conv(8, 8, 1, 2, 0)]
    level = [weights.conv(8, 8, 3, 1, 1), relu, weights.conv(8, 8, 3, 1, 1)], []
    layers = [weights.conv(3, 8, 3, 2, 1), relu, ("sum", *down), relu, ("sum", *level), relu]
    layers += [("flatten",), weights.dense(512, 100), relu, weights.dense(100, 10)]
    return random_case(layers, CIFAR, 1 / 255)


def stored(folder: pathlib.Path, name: str) -> Case:
    """A case of the tests of parity, turned from [C, H, W] to [H, W, C]."""
    arrays, nodes = np.load(folder / f"{name}.npz"), json.loads((folder / f"{name}.json").read_text())["nodes"]
    weights = np.load(folder / f"{name.rsplit('_', 1)[0]}_weights.npz")
    layers, channels = [], None
    for node in nodes:
        if node["op"] == "conv":
            w = weights[node["w"]].transpose(2, 3, 1, 0)
            layers.append(("conv", w, weights[node["b"]], node["stride"][0], node["pads"][0]))
            channels = w.shape[3]
        elif node["op"] == "dense":
            w = weights[node["w"]].T
            if channels and layers[-1] == ("flatten",):
                w = w.reshape(channels, -1, w.shape[1]).transpose(1, 0, 2).reshape(w.shape)
            layers.append(("dense", w, weights[node["b"]]))
        else:
            layers.append((node["op"],))
    low, high = (arrays[key] for key in ("x_lo", "x_hi"))
    low, high = (np.moveaxis(a, 1, -1) if a.ndim == 4 else a[..., 0] for a in (low, high))
    return Case(layers, low.astype(np.float32), high.astype(np.float32), arrays["labels"].astype(np.int32))


OVAL_BASE = (8, 4, 2, 1), (16, 4, 2, 1)
OVAL_DEEP = (8, 4, 2, 1), (8, 3, 1, 1), (8, 3, 1, 1), (8, 4, 2, 1)
NETS = {
    "fc_256x2": fully_connected(2, 0.02, "mnistfc_256x2_s1"),
    "fc_256x4": fully_connected(4, 0.005),
    "fc_256x6": fully_connected(6, 0.002),
    "kw_mnist": convolutional(MNIST, ((16, 4, 2, 1), (32, 4, 2, 1)), 0.02, "kw_mnist_s1"),
    "oval_base": convolutional(CIFAR, OVAL_BASE, 2 / 255),
    "oval_deep": convolutional(CIFAR, OVAL_DEEP, 1 / 255),
    "resnet": residual,
}

if __name__ == "__main__":
    main()
