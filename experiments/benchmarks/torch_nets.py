"""The benchmarks' networks in torch, of the same layers as `robustgen.models`."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def small_cnn() -> nn.Module:
    """`robustgen.models.small_cnn(num_classes=10)` for [B, 1, 28, 28]."""
    layers = []
    for features, wider in ((1, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(features, wider, 3), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if features == wider else []
    head = [nn.Linear(1024, 200), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(200, 200), nn.ReLU(inplace=True), nn.Linear(200, 10))


class Block(nn.Module):
    """`robustgen.models.resnet.Block`."""

    def __init__(self, features: int, wider: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, wider, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wider), nn.BatchNorm2d(wider)
        self.shortcut = nn.Sequential()
        if stride > 1 or features != wider:
            self.shortcut = nn.Sequential(nn.Conv2d(features, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + self.shortcut(x), inplace=True)


def resnet8() -> nn.Module:
    """`robustgen.models.resnet8(num_classes=10)` for [B, 3, 32, 32]."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETS = {"small_cnn": small_cnn, "resnet8": resnet8}


def plain(layers: list[dict], arrays: dict[str, np.ndarray]) -> nn.Module:
    """The net that `robustgen.models.sequential` makes of kernels [H, W, in, out] and [in, out], for [B, C, H, W]. The
    dense layer after the flattening is turned to torch's order, so that nothing is moved at run time."""
    found, channels, flat = [], None, False
    for layer in layers:
        if layer["type"] in ("relu", "flatten"):
            found.append(nn.ReLU(inplace=True) if layer["type"] == "relu" else nn.Flatten())
            flat = layer["type"] == "flatten"
            continue
        w, b = arrays[layer["w"]], arrays[layer["b"]]
        if layer["type"] == "conv":
            channels = w.shape[3]
            found.append(nn.Conv2d(w.shape[2], channels, w.shape[:2], layer["stride"], layer["padding"][0]))
            w = w.transpose(3, 2, 0, 1)
        else:
            w = w.reshape(-1, channels, w.shape[1]).transpose(1, 0, 2).reshape(w.shape) if flat else w
            found.append(nn.Linear(*w.shape))
            w, flat = w.T, False
        found[-1].weight.data, found[-1].bias.data = torch.tensor(np.ascontiguousarray(w)), torch.tensor(b)
    return nn.Sequential(*found)
