"""Networks: factories that return Linen modules, and `init`, which turns a module into a `core.Net`.

All take x in [0, 1], [B, H, W, C] float32, normalise it themselves, and return logits [B, num_classes] in float32.
"""

from robustgen.models.cnn import small_cnn as small_cnn  # TRADES' SmallCNN: four convolutions, for MNIST
from robustgen.models.cnn import wong_cnn as wong_cnn  # Wong & Kolter's conv16-conv32-fc100, for MNIST
from robustgen.models.cnn7 import cnn7 as cnn7  # CNN7 with batch norm, for certified training
from robustgen.models.importing import import_net as import_net  # weights from elsewhere, by an explicit map of names
from robustgen.models.mlp import mlp as mlp  # dense layers of given widths
from robustgen.models.net import init as init  # module -> Net with fresh parameters
from robustgen.models.preact_resnet import preact_resnet18 as preact_resnet18  # PreAct ResNet-18, for CIFAR
from robustgen.models.preact_resnet import wide_resnet as wide_resnet  # WRN-depth-width, for CIFAR
from robustgen.models.resnet import resnet8 as resnet8  # three blocks, for the CPU
from robustgen.models.resnet import resnet18 as resnet18  # ResNet-18 with the CIFAR stem
from robustgen.models.robustbench import import_robustbench as import_robustbench  # RobustBench's residual networks
from robustgen.models.sequential import sequential as sequential  # a net from a list of layers and named arrays
from robustgen.models.weights import export_weights as export_weights  # a net's arrays to .npz or .safetensors
from robustgen.models.weights import load_weights as load_weights  # .npz or .safetensors to arrays, never a pickle
