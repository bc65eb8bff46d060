"""What the benchmarks of attacks share: one core, a plain net given as a list of layers, and images.

A net is two files: `NAME.npz` with its arrays and `NAME.json` with {"layers": ..., "input_shape": ...}, in the form of
`robustgen.models.sequential`.
"""

import json
import os
import pathlib

import numpy as np

from robustgen.core import Net
from robustgen.data.source import DataError, scaled
from robustgen.data.tfds import tfds
from robustgen.models.sequential import sequential
from robustgen.models.weights import Weights, load_weights

SHAPE = (28, 28, 1)


def use_one_core(core: int | None) -> int:
    """Keeps this process on one core, else spinning threads would count as work, and returns the core. To be called
    before JAX's first computation and torch's import, which make as many threads as there are cores."""
    core = min(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {core})
    return core


def load_layers(path: pathlib.Path | None) -> tuple[list[dict], Weights, tuple[int, ...]]:
    """(layers, arrays, shape of an example) of the files beside `path`; None: a random conv16-conv32-fc100."""
    if path is None:
        return *random_layers(np.random.default_rng(0)), SHAPE
    record = json.loads(path.with_suffix(".json").read_text())
    return record["layers"], load_weights(path), tuple(record["input_shape"])


def load_net(path: pathlib.Path | None) -> Net:
    """The net of `load_layers`."""
    layers, arrays, shape = load_layers(path)
    return sequential(layers, arrays, shape=shape)


def random_layers(draw: np.random.Generator) -> tuple[list[dict], Weights]:
    """Two convolutions of 4x4 with stride 2 and two dense layers: the MNIST net of Wong & Kolter 2018 (1711.00851)."""
    conv = {"type": "conv", "stride": [2, 2], "padding": [[1, 1], [1, 1]], "kernel_layout": "HWIO"}
    dense, relu = {"type": "dense", "layout": "in,out"}, {"type": "relu"}
    layers, arrays = [], {}
    for i, shape in enumerate([(4, 4, 1, 16), (4, 4, 16, 32), (1568, 100), (100, 10)]):
        layers += [{"type": "flatten", "order": "NHWC"}] if i == 2 else []
        layers += [{**(conv if i < 2 else dense), "w": f"{i}_w", "b": f"{i}_b"}, relu]
        arrays[f"{i}_w"] = draw.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        arrays[f"{i}_b"] = np.zeros(shape[-1], np.float32)
    return layers[:-1], arrays


def mnist_test(num: int) -> tuple[np.ndarray, np.ndarray, str]:
    """(x [num, 28, 28, 1] in [0, 1], y [num], whence): MNIST's test images where TFDS has them, else random ones."""
    try:
        source = tfds(name="mnist", num_validation=1)
    except DataError:
        draw = np.random.default_rng(0)
        return draw.random((num, *SHAPE), np.float32), draw.integers(0, 10, num, np.int32), "random images"
    x, y = scaled(source.load("test"), source.scale)
    return np.asarray(x[:num], np.float32), np.asarray(y[:num], np.int32), "MNIST test images"
