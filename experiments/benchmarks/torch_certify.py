"""auto_LiRPA's CROWN and alpha-CROWN as `certify.py` compares them, and its nets in torch.

0.3 is the newest auto_LiRPA on PyPI (install it with --no-deps, and appdirs); what it imports from older versions of
numpy and torch is given back here, before it is imported. None of that is in what is timed.
"""

import sys
import types
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.onnx.symbolic_helper
import torch.onnx.utils
from torch import nn
from torch.onnx._internal.torchscript_exporter import _globals
from torch.onnx._internal.torchscript_exporter import utils as exporter

warnings.simplefilter("ignore")
_sets = types.ModuleType("numpy.lib.arraysetops")
_sets.isin = np.isin
sys.modules[_sets.__name__] = _sets
torch.onnx.utils._optimize_graph = exporter._optimize_graph
torch.onnx.symbolic_helper._set_opset_version = lambda v: setattr(_globals.GLOBALS, "_export_onnx_opset_version", v)
torch._C.Node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)

from auto_LiRPA import BoundedModule, BoundedTensor  # noqa: E402
from auto_LiRPA.operators import BoundRelu  # noqa: E402
from auto_LiRPA.perturbations import PerturbationLpNorm  # noqa: E402

_members = BoundedModule._named_members
BoundedModule._named_members = lambda *args, remove_duplicate=True, **rest: _members(*args, **rest)


def _masked(lower: torch.Tensor, upper: torch.Tensor, alpha: torch.Tensor | None, other: torch.Tensor | None) -> tuple:
    """`BoundRelu._relu_mask_alpha` without its clamp, which newer versions of torch give no gradient at 0 and 1, where
    alphas begin; they are brought back into [0, 1] after each step as it is."""
    active, dead = (lower >= 0).to(lower.dtype), upper <= 0
    free = (1.0 - active) * (1.0 - dead.to(upper.dtype))
    return *(None if a is None else a * free + active for a in (alpha, other)), dead.all()


BoundRelu._relu_mask_alpha = staticmethod(_masked)

Margins = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(lower [B, C, H, W] or [B, D], upper, y [B]) -> bounds [B, K - 1] of logit_y - logit_k, k ascending, without y."""


class Sum(nn.Module):
    """The sum of two branches of the same input, as in residual blocks."""

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def module(layers: Sequence) -> nn.Sequential:
    """The net that `certify.applied` computes, for [B, C, H, W] in the place of [B, H, W, C]."""
    return nn.Sequential(*_modules(layers)).requires_grad_(False)


def _modules(layers: Sequence) -> list[nn.Module]:
    found, channels, flat = [], None, False
    for kind, *arguments in layers:
        if kind == "conv":
            w, b, stride, pad = arguments
            channels = w.shape[3]
            found.append(nn.Conv2d(w.shape[2], channels, w.shape[:2], stride, pad))
            _fill(found[-1], w.transpose(3, 2, 0, 1), b)
        elif kind == "dense":
            w, b = arguments
            if flat and channels:
                w = w.reshape(-1, channels, w.shape[1]).transpose(1, 0, 2).reshape(w.shape)
            found.append(nn.Linear(*w.shape))
            _fill(found[-1], w.T, b)
            flat = False
        elif kind == "sum":
            found.append(Sum(*(nn.Sequential(*_modules(branch)) for branch in arguments)))
            channels = next(layer[1].shape[3] for layer in reversed(arguments[0]) if layer[0] == "conv")
        else:
            found.append(nn.ReLU() if kind == "relu" else nn.Flatten())
            flat = kind == "flatten"
    return found


def _fill(layer: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.weight.data, layer.bias.data = torch.tensor(np.ascontiguousarray(weight)), torch.tensor(bias)


def crown(net: nn.Module, example: np.ndarray) -> Margins:
    """CROWN with the library's defaults, which look for intermediate bounds of unstable neurons alone."""
    bounded = BoundedModule(net, torch.tensor(example), verbose=False)

    def margins(lower: np.ndarray, upper: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, rows = _inputs(lower, upper, y)
        with torch.no_grad():
            return bounded.compute_bounds((x,), C=rows, method="CROWN", bound_upper=False)[0].numpy()

    return margins


def alpha(net: nn.Module, example: np.ndarray, *, num_steps: int, learning_rate: float, decay: float) -> Margins:
    """CROWN, then `num_steps` of alpha-CROWN with those bounds between, as alpha-beta-CROWN calls it. Without bounds
    handed on the library recomputes them every step, at several times the cost."""
    chosen = {"iteration": num_steps, "lr_alpha": learning_rate, "lr_decay": decay, "init_alpha": False}
    options = {"optimize_bound_args": {**chosen, "early_stop_patience": 10 * num_steps}}
    options["minimum_sparsity"] = 1.0  # 0.3 fails on layers of which more than nine in ten are unstable
    bounded = BoundedModule(net, torch.tensor(example), bound_opts=options, verbose=False)

    def margins(lower: np.ndarray, upper: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, rows = _inputs(lower, upper, y)
        known = bounded.init_slope((x,), c=rows, method="backward", bound_upper=False)[2]
        found = bounded.compute_bounds(
            (x,), C=rows, method="CROWN-Optimized", bound_upper=False, intermediate_layer_bounds=known
        )
        return found[0].detach().numpy()

    return margins


def _inputs(lower: np.ndarray, upper: np.ndarray, y: np.ndarray) -> tuple[BoundedTensor, torch.Tensor]:
    """The boxes and, for each example, the rows [K - 1, K] that make its margins."""
    low, high = torch.tensor(lower), torch.tensor(upper)
    eye = np.eye(10, dtype=np.float32)
    rows = np.stack([eye[label] - np.delete(eye, label, 0) for label in y])
    box = PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high)
    return BoundedTensor((low + high) / 2, box), torch.tensor(rows)
