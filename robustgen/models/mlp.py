"""Multi-layer perceptron."""

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, Decay, checked
from robustgen.models.layers import Dense, Dtype, Mean, Std, normalize, torch_kernel


class Mlp(nn.Module):
    """See `mlp`."""

    hidden: tuple[int, ...]
    num_classes: int
    dropout: float
    mean: Mean
    std: Std
    dtype: Dtype
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = normalize(x, self.mean, self.std)
        x = x.reshape(x.shape[0], -1)
        for features in self.hidden:
            x = jax.nn.relu(Dense(features, self.dtype, kernel_init=self.kernel_init)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.num_classes)(x)


@checked
def mlp(
    *,
    hidden: tuple[Count, ...],
    num_classes: Count,
    dropout: Decay = 0.0,
    mean: Mean = (),
    std: Std = (),
    dtype: Dtype = "float32",
    kernel_init: nn.initializers.Initializer = torch_kernel,
) -> nn.Module:
    """Flattens, then dense layers of `hidden` widths with relu and dropout, then logits [B, num_classes] in float32.

    Weights and biases start as in torch: U(-a, a), a = 1 / sqrt(fan_in). `kernel_init` is that of
    all kernels but the last, `layers.ibp_normal` for certified training. `mean`, `std` are per channel (last axis).
    """
    return Mlp(tuple(hidden), num_classes, dropout, tuple(mean), tuple(std), dtype, kernel_init)
