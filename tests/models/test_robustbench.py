"""RobustBench's state dicts in our modules: against torch nets with its names, and that every name has its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import models
from robustgen.models import robustbench
from robustgen.models.layers import he_normal, torch_bias
from robustgen.models.preact_resnet import PreActResNet
from robustgen.models.resnet import ResNet
from robustgen.models.robustbench import import_robustbench
from robustgen.models.weights import WeightsError, named_leaves

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
PREACT = {"num_classes": 5, "dropout": 0.0, "kernel_init": he_normal, "bias_init": torch_bias, "dtype": "float32"}


def preact(mean=(), std=()):
    return PreActResNet(stem=8, widths=(8, 12, 16, 20), blocks=2, mean=mean, std=std, **PREACT)


def wide(mean=(), std=()):
    return models.wide_resnet(depth=10, width=2, num_classes=5, mean=mean, std=std)


def basic(mean=(), std=()):
    return ResNet((8, 12, 16, 20), 2, 5, mean, std, "float32")


@pytest.fixture(scope="module")
def torch_nets():
    """The three networks in torch, written here with the attribute names of RobustBench, random in every array."""
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional as F

    def conv(inputs, outputs, size=3, stride=1):
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    class PreActBlock(nn.Module):
        def __init__(self, inputs, outputs, stride, shortcut):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
            self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
            self.pick = lambda: None
            if stride != 1 or inputs != outputs:
                projection = conv(inputs, outputs, 1, stride)
                setattr(self, shortcut, nn.Sequential(projection) if shortcut == "shortcut" else projection)
                self.pick = lambda: getattr(self, shortcut)

        def forward(self, x):
            y = F.relu(self.bn1(x))
            kept = x if self.pick() is None else self.pick()(y)
            return kept + self.conv2(F.relu(self.bn2(self.conv1(y))))

    class BasicBlock(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + self.shortcut(x))

    def stages(net, name, stem, widths, blocks, block):
        for s, width in enumerate(widths):
            before = widths[s - 1] if s else stem
            made = nn.Sequential(*(block(before if b == 0 else width, width, 2 if s and b == 0 else 1)
                                   for b in range(blocks)))  # fmt: skip
            if name == "block":
                holder = nn.Module()
                holder.layer, holder.forward = made, made.forward
                made = holder
            setattr(net, f"{name}{s + 1}", made)

    class Net(nn.Module):
        def __init__(self, kind, stem, widths, blocks, norm, head):
            super().__init__()
            self.kind, self.norm, self.head = kind, norm, head
            self.conv1 = conv(3, stem)
            self.name = "block" if kind == "wide" else "layer"
            shortcut = "convShortcut" if kind == "wide" else "shortcut"
            block = BasicBlock if kind == "basic" else lambda i, o, s: PreActBlock(i, o, s, shortcut)
            stages(self, self.name, stem, widths, blocks, block)
            setattr(self, norm, nn.BatchNorm2d(stem if kind == "basic" else widths[-1]))
            setattr(self, head, nn.Linear(widths[-1], 5))
            self.depth = len(widths)
            self.register_buffer("mu", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("sigma", torch.tensor(STD).view(1, 3, 1, 1))

        def forward(self, x):
            y, norm = self.conv1((x - self.mu) / self.sigma), getattr(self, self.norm)
            y = F.relu(norm(y)) if self.kind == "basic" else y
            for s in range(self.depth):
                y = getattr(self, f"{self.name}{s + 1}").forward(y)
            y = y if self.kind == "basic" else F.relu(norm(y))
            return getattr(self, self.head)(F.avg_pool2d(y, y.shape[-1]).flatten(1))

    torch.manual_seed(0)
    nets = {
        "preact": Net("preact", 8, (8, 12, 16, 20), 2, "bn", "linear"),
        "wide": Net("wide", 16, (32, 64, 128), 1, "bn1", "fc"),
        "basic": Net("basic", 8, (8, 12, 16, 20), 2, "bn1", "linear"),
    }
    for net in nets.values():
        net.eval()
        for name, array in net.state_dict().items():
            if "running_var" in name or "bn" in name and name.endswith("weight"):
                array.uniform_(0.5, 1.5)
            elif "running_mean" in name or name.endswith("bias"):
                array.normal_(0, 0.2)
    return torch, nets


CASES = {
    "preact": (preact, robustbench.preact_resnet_names),
    "wide": (wide, robustbench.wide_resnet_names),
    "basic": (basic, robustbench.resnet_names),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_same_logits_as_torch(kind, torch_nets):
    torch, nets = torch_nets
    x = np.random.default_rng(0).random((4, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = nets[kind](torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    stored = {f"module.{name}": array.numpy() for name, array in nets[kind].state_dict().items()}
    stored["module.sub_block1.layer.0.bn1.weight"] = np.ones(3, np.float32)
    module, names = CASES[kind]
    net = import_robustbench(module(MEAN, STD), stored, names=names, shape=(16, 16, 3))
    np.testing.assert_allclose(jax.jit(lambda x: net(x))(jnp.asarray(x)), theirs, rtol=1e-3, atol=1e-4)
    assert np.ptp(theirs) > 0.1
    with pytest.raises(WeightsError, match=r"hold mean \(0.49.* give these to the module, not \(\(\), \(\)\)"):
        import_robustbench(module(), stored, names=names, shape=(16, 16, 3))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (models.preact_resnet18(num_classes=10), robustbench.preact_resnet_names),
        (models.wide_resnet(depth=34, width=10, num_classes=10), robustbench.wide_resnet_names),
        (models.resnet18(num_classes=10), robustbench.resnet_names),
    ],
)
def test_every_array_of_the_published_sizes_has_a_name_of_its_own(module, names):
    net = jax.eval_shape(lambda: models.init(module, (32, 32, 3), jax.random.key(0)))
    paths, found = named_leaves({"params": net.params, **net.state}), names(module)
    used = [found[path].name for path in paths]
    assert len(set(used)) == len(used) and all(name.endswith(("weight", "bias", "mean", "var")) for name in used)


def test_the_other_preact_block_is_refused():
    """Wong2020Fast has no batch norm before the dense layer."""
    names = robustbench.preact_resnet_names(preact())
    net = jax.eval_shape(lambda: models.init(preact(), (8, 8, 3), jax.random.key(0)))
    shapes = {names[path].name: leaf.shape for path, leaf in named_leaves({"params": net.params, **net.state}).items()}
    turned = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    stored = {name: np.zeros([shape[i] for i in turned[len(shape)]]) for name, shape in shapes.items()}
    import_robustbench(preact(), stored, names=robustbench.preact_resnet_names, shape=(8, 8, 3))
    without = {name: array for name, array in stored.items() if not name.startswith("bn.")}
    with pytest.raises(WeightsError, match=r"4 missing: bn\.running_mean"):
        import_robustbench(preact(), without, names=robustbench.preact_resnet_names, shape=(8, 8, 3))
