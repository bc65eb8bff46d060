"""Residual networks for 32 x 32 images, activation after addition (He et al. 2016, arXiv 1512.03385)."""

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, checked
from robustgen.models.layers import Conv, Dense, Dtype, Mean, Std, normalize
from robustgen.models.norm import BatchNorm
from robustgen.models.pool import global_mean_pool


class Block(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1x1 convolution on x where its shape changes."""

    features: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = Conv(self.features, 3, self.stride, 1, self.dtype, bias_init=None)(x)
        y = jax.nn.relu(BatchNorm()(y, train))
        y = Conv(self.features, 3, 1, 1, self.dtype, bias_init=None)(y)
        y = BatchNorm()(y, train)
        if x.shape != y.shape:
            x = BatchNorm()(Conv(self.features, 1, self.stride, 0, self.dtype, bias_init=None)(x), train)
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """A 3x3 convolution, then stages of `blocks` blocks each; every stage but the first halves the resolution."""

    widths: tuple[int, ...]
    blocks: int
    num_classes: int
    mean: Mean
    std: Std
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        x = Conv(self.widths[0], 3, 1, 1, self.dtype, bias_init=None)(x)
        x = jax.nn.relu(BatchNorm()(x, train))
        for stage, features in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Block(features, stride, self.dtype)(x, train)
        return Dense(self.num_classes)(global_mean_pool(x))


@checked
def resnet18(*, num_classes: Count, mean: Mean = (), std: Std = (), dtype: Dtype = "float32") -> nn.Module:
    """ResNet-18 with a 3x3 stem, as github.com/kuangliu/pytorch-cifar: 11,173,962 parameters for 10 classes.

    Convolutions and the dense layer start as in torch. `mean`, `std` are per channel.
    """
    return ResNet((64, 128, 256, 512), 2, num_classes, tuple(mean), tuple(std), dtype)


@checked
def resnet8(*, num_classes: Count, mean: Mean = (), std: Std = (), dtype: Dtype = "float32") -> nn.Module:
    """The same with one block a stage and widths 16, 32, 64, small enough for the CPU: 78,042 parameters."""
    return ResNet((16, 32, 64), 1, num_classes, tuple(mean), tuple(std), dtype)
