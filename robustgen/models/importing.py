"""Weights from elsewhere in our modules: an explicit map from our names to theirs, with what must be turned on the way.

    weights = load_weights("theirs.safetensors")
    net = import_net(wong_cnn(num_classes=10), weights, shape=(28, 28, 1), names={
        **torch_conv("Conv_0", "0"), **torch_conv("Conv_1", "2"),
        **torch_dense("Dense_0", "5", after_flatten=(32, 7, 7)), **torch_dense("Dense_1", "7"),
    })

torch keeps images as channel, height, width, kernels as OIHW and dense weights as [out, in]; here images are height,
width, channel, kernels HWIO and dense weights [in, out]. Nothing is turned that the map does not say.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Net
from robustgen.models.net import init
from robustgen.models.weights import Weights, WeightsError, listed, named_leaves

Convert = Callable[[np.ndarray], np.ndarray]


def as_is(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


class Source(NamedTuple):
    """Where an array of ours comes from: its name there, and how it is turned into ours."""

    name: str
    convert: Convert = as_is


Names = Mapping[str, Source] | Callable[[str], Source]
"""Our path ("params/Conv_0/kernel") -> Source. A function may raise KeyError for what it does not know."""


def from_torch_conv(kernel: np.ndarray) -> np.ndarray:
    """A convolution kernel, OIHW -> HWIO. Both libraries cross-correlate, so nothing is flipped."""
    _expect_rank(kernel, 4, "OIHW")
    return kernel.transpose(2, 3, 1, 0)


def from_torch_dense(weight: np.ndarray) -> np.ndarray:
    """A dense weight, [out, in] -> [in, out]."""
    _expect_rank(weight, 2, "[out, in]")
    return weight.T


def from_torch_flatten(channels: int, height: int, width: int) -> Convert:
    """For the dense layer after a flatten: [out, C * H * W] -> [H * W * C, out], inputs as NHWC flattens them."""

    def convert(weight: np.ndarray) -> np.ndarray:
        _expect_rank(weight, 2, "[out, in]")
        if weight.shape[1] != channels * height * width:
            raise WeightsError(f"has {weight.shape[1]} inputs, not {channels} x {height} x {width} (C, H, W)")
        return weight.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])

    return convert


def torch_conv(ours: str, theirs: str) -> dict[str, Source]:
    """The map of a Conv2d: kernel, and bias where ours has one."""
    return _layer(ours, theirs, from_torch_conv)


def torch_dense(ours: str, theirs: str, *, after_flatten: tuple[int, int, int] | None = None) -> dict[str, Source]:
    """The map of a Linear; `after_flatten` is (C, H, W) of what was flattened before it, where that was an image."""
    return _layer(ours, theirs, from_torch_flatten(*after_flatten) if after_flatten else from_torch_dense)


def torch_batch_norm(ours: str, theirs: str) -> dict[str, Source]:
    """The map of a BatchNorm2d: scale and bias, running mean and variance."""
    params = {"scale": "weight", "bias": "bias"}
    stats = {"mean": "running_mean", "var": "running_var"}
    return {
        f"{kind}/{ours}/{name}": Source(f"{theirs}.{source}")
        for kind, group in (("params", params), ("batch_stats", stats))
        for name, source in group.items()
    }


def import_net(
    module: nn.Module,
    weights: Weights,
    *,
    shape: tuple[int, ...],
    names: Names = Source,
    dropped: Sequence[str] = ("*.num_batches_tracked",),
) -> Net:
    """A net of `module` with `weights`, for inputs of `shape` (one example's, without the batch axis).

    Args:
      names: for each array of ours, which of theirs, and how to turn it. Default: the same name, as by `export_weights`
      dropped: patterns (`fnmatch`) of names that may be left over; anything else left over is refused.

    Raises `WeightsError`, one line that lists all that is missing, left over, of another shape, or not finite.
    """
    template = jax.eval_shape(lambda: init(module, shape, jax.random.key(0)))
    variables = {"params": template.params, **template.state}
    wanted = named_leaves(variables)
    sources, unmapped = _sources(wanted, names)
    found, refusals = _convert(wanted, sources, weights)
    used = {source.name for source in sources.values()}
    left = [name for name in weights if name not in used and not any(fnmatch.fnmatch(name, p) for p in dropped)]
    absent = [f"{source.name} (for {path})" for path, source in sources.items() if source.name not in weights]
    problems = {"not mapped": unmapped, "missing": absent, "left over": left, "do not fit": refusals}
    if any(problems.values()):
        words = "; ".join(f"{len(found)} {what}: {listed(found)}" for what, found in problems.items() if found)
        raise WeightsError(f"{type(module).__name__} cannot take these weights: {words}")
    filled = jax.tree.unflatten(jax.tree.structure(variables), [jnp.asarray(found[path]) for path in wanted])
    return Net(params=filled.pop("params"), state=filled, apply_fn=module.apply)


def _sources(wanted: Mapping[str, jax.Array], names: Names) -> tuple[dict[str, Source], list[str]]:
    """The source of each path, and the paths without one."""
    lookup = names.__getitem__ if isinstance(names, Mapping) else names
    sources, unmapped = {}, []
    for path in wanted:
        try:
            sources[path] = lookup(path)
        except KeyError:
            unmapped.append(path)
    return sources, unmapped


def _convert(
    wanted: Mapping[str, jax.Array], sources: Mapping[str, Source], weights: Weights
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Our arrays by path, as far as there are any, and a line for each that does not fit."""
    found, refusals = {}, []
    for path, source in sources.items():
        if source.name in weights:
            try:
                found[path] = _fitting(source.convert(weights[source.name]), wanted[path])
            except WeightsError as error:
                given = "x".join(map(str, weights[source.name].shape)) or "scalar"
                refusals.append(f"{source.name} [{given}] for {path} {error}")
    return found, refusals


def _fitting(array: np.ndarray, like: jax.Array) -> np.ndarray:
    if array.shape != like.shape:
        raise WeightsError(f"becomes {array.shape}, not {like.shape}")
    array = np.asarray(array, like.dtype)
    if not np.all(np.isfinite(array)):
        raise WeightsError("is not finite")
    return array


def _layer(ours: str, theirs: str, convert: Convert) -> dict[str, Source]:
    return {
        f"params/{ours}/kernel": Source(f"{theirs}.weight", convert),
        f"params/{ours}/bias": Source(f"{theirs}.bias"),
    }


def _expect_rank(array: np.ndarray, rank: int, layout: str) -> None:
    if array.ndim != rank:
        raise WeightsError(f"has {array.ndim} axes, not {rank} ({layout})")
