"""Residual networks with activation before convolution (He et al. 2016, arXiv 1603.05027), and their wide form."""

from typing import Annotated

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, Decay, KnobError, Range, checked
from robustgen.models.layers import (
    BiasInit,
    Conv,
    Dense,
    Dtype,
    Mean,
    Std,
    he_normal_out,
    normalize,
    torch_bias,
    torch_kernel,
    zero_bias,
)
from robustgen.models.norm import BatchNorm
from robustgen.models.pool import global_mean_pool


class PreActBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))); where the shape changes, a 1x1 convolution of the activated x is added."""

    features: int
    stride: int
    dropout: float
    kernel_init: nn.initializers.Initializer
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def conv(size: int, stride: int) -> Conv:
            return Conv(self.features, size, stride, size // 2, self.dtype, self.kernel_init, bias_init=None)

        y = jax.nn.relu(BatchNorm()(x, train))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride)(y)
        y = jax.nn.relu(BatchNorm()(conv(3, self.stride)(y), train))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + conv(3, 1)(y)


class PreActResNet(nn.Module):
    """A 3x3 convolution to `stem` channels, stages of `blocks` blocks each, batch norm, relu, mean, dense layer."""

    stem: int
    widths: tuple[int, ...]
    blocks: int
    num_classes: int
    dropout: float
    kernel_init: nn.initializers.Initializer
    bias_init: BiasInit
    mean: Mean
    std: Std
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        x = Conv(self.stem, 3, 1, 1, self.dtype, self.kernel_init, bias_init=None)(x)
        for stage, features in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = PreActBlock(features, stride, self.dropout, self.kernel_init, self.dtype)(x, train)
        x = jax.nn.relu(BatchNorm()(x, train))
        return Dense(self.num_classes, bias_init=self.bias_init)(global_mean_pool(x))


@checked
def preact_resnet18(*, num_classes: Count, mean: Mean = (), std: Std = (), dtype: Dtype = "float32") -> nn.Module:
    """PreAct ResNet-18 of Rice et al. 2020 (github.com/locuslab/robust_overfitting, preactresnet.py): with the last
    batch norm and relu that kuangliu's lacks. 11,172,170 parameters for 10 classes. Starts as in torch.
    """
    return PreActResNet(
        64, (64, 128, 256, 512), 2, num_classes, 0.0, torch_kernel, torch_bias, tuple(mean), tuple(std), dtype
    )


@checked
def wide_resnet(
    *,
    depth: Annotated[int, Range(10)],
    width: Count,
    num_classes: Count,
    dropout: Decay = 0.0,
    mean: Mean = (),
    std: Std = (),
    dtype: Dtype = "float32",
) -> nn.Module:
    """WRN-depth-width of Zagoruyko & Komodakis 2016 (arXiv 1605.07146), as in github.com/yaodongyu/TRADES.

    For 10 classes WRN-28-10 has 36,479,194 and WRN-34-10 46,160,474 parameters. Kernels start from N(0, 2 / fan_out),
    the dense layer as in torch with zero bias. TRADES' code also holds a `sub_block1` that it never runs; it is left
    out. Raises `KnobError` unless depth = 6 n + 4.
    """
    if (depth - 4) % 6:
        raise KnobError("depth", f"must be 6 n + 4 (10, 16, 22, 28, 34, ...); got {depth}")
    widths = (16 * width, 32 * width, 64 * width)
    return PreActResNet(
        16, widths, (depth - 4) // 6, num_classes, dropout, he_normal_out, zero_bias, tuple(mean), tuple(std), dtype
    )
