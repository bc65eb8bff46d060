"""The network of certified training's published tables."""

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, checked
from robustgen.models.layers import Conv, Dense, Dtype, Mean, Std, ibp_normal, normalize
from robustgen.models.norm import BatchNorm


class Cnn7(nn.Module):
    """See `cnn7`."""

    num_classes: int
    width: int
    features: int
    mean: Mean
    std: Std
    dtype: Dtype
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (2, 1)):
            x = Conv(factor * self.width, 3, stride, 1, self.dtype, kernel_init=self.kernel_init)(x)
            x = jax.nn.relu(BatchNorm()(x, train))
        x = x.reshape(x.shape[0], -1)
        x = Dense(self.features, self.dtype, kernel_init=self.kernel_init)(x)
        return Dense(self.num_classes)(jax.nn.relu(BatchNorm()(x, train)))


@checked
def cnn7(
    *,
    num_classes: Count,
    width: Count = 64,
    features: Count = 512,
    mean: Mean = (),
    std: Std = (),
    dtype: Dtype = "float32",
    kernel_init: nn.initializers.Initializer = ibp_normal,
) -> nn.Module:
    """CNN7 with batch norm (Shi et al. 2021, arXiv 2103.17268; cnn_7layer_bn2 of their code): five 3x3 convolutions,
    the third of stride 2 and with twice the filters from there, a dense layer of `features`, the last layer.

    What SABR, MTL-IBP, CC-IBP, Exp-IBP and CTBench report for MNIST and CIFAR-10. Starts as in Shi et al., the last
    layer and all biases as in torch. 13,259,338 parameters for 28 x 28 x 1 and 10 classes, 17,192,650 for 32 x 32 x 3.
    """
    return Cnn7(num_classes, width, features, tuple(mean), tuple(std), dtype, kernel_init)
