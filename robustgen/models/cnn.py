"""The small convolutional networks of the literature. Flattening is in the order height, width, channel."""

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, checked
from robustgen.models.layers import Conv, Dense, Dtype, Mean, Std, he_normal, normalize, torch_kernel, zero_bias
from robustgen.models.pool import max_pool


class SmallCnn(nn.Module):
    """See `small_cnn`."""

    num_classes: int
    mean: Mean
    std: Std
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        for features in (32, 64):
            for _ in range(2):
                conv = Conv(features, 3, dtype=self.dtype, kernel_init=he_normal, bias_init=zero_bias)
                x = jax.nn.relu(conv(x))
            x = max_pool(x, size=2)
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(Dense(200, self.dtype)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = jax.nn.relu(Dense(200, self.dtype)(x))
        return Dense(self.num_classes, kernel_init=nn.initializers.zeros, bias_init=zero_bias)(x)


@checked
def small_cnn(*, num_classes: Count, mean: Mean = (), std: Std = (), dtype: Dtype = "float32") -> nn.Module:
    """SmallCNN of TRADES (github.com/yaodongyu/TRADES, models/small_cnn.py): four 3x3 convolutions, three dense layers.

    Its dropout of 0.5 and its start too: Kaiming normal kernels, torch's default for dense layers, a last layer of
    zeros. 312,202 parameters for 28 x 28 x 1 and 10 classes.
    """
    return SmallCnn(num_classes, tuple(mean), tuple(std), dtype)


class WongCnn(nn.Module):
    """See `wong_cnn`."""

    num_classes: int
    mean: Mean
    std: Std
    dtype: Dtype
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        for features in (16, 32):
            conv = Conv(features, 4, stride=2, padding=1, dtype=self.dtype, kernel_init=self.kernel_init)
            x = jax.nn.relu(conv(x))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(Dense(100, self.dtype, kernel_init=self.kernel_init)(x))
        return Dense(self.num_classes)(x)


@checked
def wong_cnn(
    *,
    num_classes: Count,
    mean: Mean = (),
    std: Std = (),
    dtype: Dtype = "float32",
    kernel_init: nn.initializers.Initializer = torch_kernel,
) -> nn.Module:
    """The convolutional network of Wong & Kolter 2018 (arXiv 1711.00851; github.com/locuslab/convex_adversarial,
    examples/problems.py): 16 and 32 filters 4x4 of stride 2, 100 units. Weights and biases start as in torch;
    `kernel_init` is that of all kernels but the last, `layers.ibp_normal` for certified training.

    166,406 parameters for 28 x 28 x 1 and 10 classes.
    """
    return WongCnn(num_classes, tuple(mean), tuple(std), dtype, kernel_init)
