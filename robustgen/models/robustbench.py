"""RobustBench's residual networks in ours: the names of its state dicts, and its normalisation.

    weights = load_weights("Rice2020OverfittingNetL2.safetensors")     # converted in the reader's own environment
    mean, std = normalization(weights)
    net = import_robustbench(preact_resnet18(num_classes=10, mean=mean, std=std), weights, names=preact_resnet_names)

Read in github.com/RobustBench/robustbench: model_zoo/architectures/resnet.py, wide_resnet.py, and model_zoo/cifar10.py.
Its PreActResNet is ours with `PreActBlockV2` and `bn_before_fc=True` (Rice2020Overfitting L2, Kireev2021Effectiveness).
With `PreActBlock` (Andriushchenko2020Understanding, Wong2020Fast) it is another network, whose shortcut convolves the
raw input of a block, and without the last batch norm: refused, as `bn.*` is missing. Nets that normalise in `forward`,
without buffers (Hendrycks2019Using: 2 x - 1), need that as `mean`, `std` by hand, since names cannot tell.
"""

from collections.abc import Callable

import flax.linen as nn
import numpy as np

from robustgen.core import Net
from robustgen.models.importing import Source, import_net, torch_batch_norm, torch_conv, torch_dense
from robustgen.models.preact_resnet import PreActResNet
from robustgen.models.resnet import ResNet
from robustgen.models.weights import Weights, WeightsError, without_prefix

BUFFERS = ("mu", "sigma")
DROPPED = ("*.num_batches_tracked", "sub_block1.*", *BUFFERS)
"""What has no counterpart here: counters, TRADES' second first block, which it never runs, and the normalisation, which
is checked instead."""


def import_robustbench(
    module: nn.Module,
    weights: Weights,
    *,
    names: Callable[[nn.Module], dict[str, Source]],
    shape: tuple[int, int, int] = (32, 32, 3),
) -> Net:
    """A net of `module` with RobustBench's weights. `names` is the map for its kind, from below.

    Raises `WeightsError` as `import_net`, and where the weights hold another normalisation than `module` computes.
    """
    for prefix in ("module.", "model."):
        weights = without_prefix(weights, prefix)
    if held := normalization(weights):
        ours = (module.mean, module.std)
        if not all(len(a) == len(b) and np.allclose(a, b, atol=1e-6) for a, b in zip(ours, held, strict=True)):
            raise WeightsError(f"the weights hold mean {held[0]}, std {held[1]}; give these to the module, not {ours}")
    return import_net(module, weights, shape=shape, names=names(module), dropped=DROPPED)


def normalization(weights: Weights) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) per channel from the buffers `mu`, `sigma`; None where there are none."""
    if not all(name in weights for name in BUFFERS):
        return None
    mean, std = (tuple(float(v) for v in np.ravel(weights[name])) for name in BUFFERS)
    return mean, std


def preact_resnet_names(module: PreActResNet) -> dict[str, Source]:
    """The names of `PreActResNet` with `bn_before_fc=True`, for `preact_resnet18`."""
    blocks = _preact_blocks(module, "layer{stage}.{block}", "shortcut.0")
    return _stem() | blocks | torch_batch_norm("BatchNorm_0", "bn") | torch_dense("Dense_0", "linear")


def wide_resnet_names(module: PreActResNet) -> dict[str, Source]:
    """The names of `WideResNet`, RobustBench's and TRADES', for `wide_resnet`."""
    blocks = _preact_blocks(module, "block{stage}.layer.{block}", "convShortcut")
    return _stem() | blocks | torch_batch_norm("BatchNorm_0", "bn1") | torch_dense("Dense_0", "fc")


def resnet_names(module: ResNet) -> dict[str, Source]:
    """The names of `ResNet` with `BasicBlock`, RobustBench's and kuangliu's, for `resnet18`."""
    found = _stem() | torch_batch_norm("BatchNorm_0", "bn1") | torch_dense("Dense_0", "linear")
    for i, (stage, block, _) in enumerate(_blocks(module.widths, module.blocks, module.widths[0])):
        ours, theirs = f"Block_{i}", f"layer{stage}.{block}"
        pairs = ("conv1", "bn1"), ("conv2", "bn2"), ("shortcut.0", "shortcut.1")
        for j, (conv, norm) in enumerate(pairs):
            found |= torch_conv(f"{ours}/Conv_{j}", f"{theirs}.{conv}")
            found |= torch_batch_norm(f"{ours}/BatchNorm_{j}", f"{theirs}.{norm}")
    return found


def _stem() -> dict[str, Source]:
    return torch_conv("Conv_0", "conv1")


def _preact_blocks(module: PreActResNet, pattern: str, shortcut: str) -> dict[str, Source]:
    found = {}
    for i, (stage, block, reshapes) in enumerate(_blocks(module.widths, module.blocks, module.stem)):
        ours, theirs = f"PreActBlock_{i}", pattern.format(stage=stage, block=block)
        convs = [shortcut, "conv1", "conv2"] if reshapes else ["conv1", "conv2"]  # Linen numbers in the order of calls
        for j, conv in enumerate(convs):
            found |= torch_conv(f"{ours}/Conv_{j}", f"{theirs}.{conv}")
        for j, norm in enumerate(("bn1", "bn2")):
            found |= torch_batch_norm(f"{ours}/BatchNorm_{j}", f"{theirs}.{norm}")
    return found


def _blocks(widths: tuple[int, ...], blocks: int, stem: int) -> list[tuple[int, int, bool]]:
    """(stage from 1, block from 0, whether its shortcut is a convolution), in the order they are run."""
    before = (stem, *widths)
    return [
        (stage + 1, block, block == 0 and (stage > 0 or before[stage] != widths[stage]))
        for stage in range(len(widths))
        for block in range(blocks)
    ]
