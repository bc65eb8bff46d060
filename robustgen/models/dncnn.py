"""DnCNN: a residual convolutional denoiser."""

import flax.linen as nn
import jax

from robustgen.core import Array
from robustgen.knobs import Count, checked
from robustgen.models.layers import Conv, zero_bias
from robustgen.models.norm import BatchNorm


class DnCnn(nn.Module):
    """See `dncnn`. Maps x [B, H, W, C] to an x of the same shape: not a classifier."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        weights = nn.initializers.orthogonal()
        y = jax.nn.relu(Conv(self.width, 3, padding=1, kernel_init=weights, bias_init=zero_bias)(x))
        for _ in range(self.depth - 2):
            y = Conv(self.width, 3, padding=1, kernel_init=weights, bias_init=None)(y)
            y = jax.nn.relu(BatchNorm()(y, train))
        return x - Conv(x.shape[-1], 3, padding=1, kernel_init=nn.initializers.zeros, bias_init=None)(y)


@checked
def dncnn(*, depth: Count, width: Count) -> DnCnn:
    """x minus the noise that `depth` 3x3 convolutions of `width` channels see in it, all but the first and last with
    batch norm. Zhang et al. 2017 (arXiv 1608.03981), section 3; depth 17, width 64 there.

    Starts as the identity: orthogonal weights, the last ones zero, as in microsoft/denoised-smoothing. Deviations from
    that code: batch norm has torch's defaults, not eps 1e-4 and momentum 0.95.
    """
    return DnCnn(depth, width)
