"""Networks: factories that return Linen modules, and `init`, which turns a module into a `core.Net`.

All take x in [0, 1], [B, H, W, C] float32, normalise it themselves, and return logits [B, num_classes] in float32.
"""

from robustgen.models.mlp import mlp as mlp  # dense layers of given widths
from robustgen.models.net import init as init  # module -> Net with fresh parameters
