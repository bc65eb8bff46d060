"""PGD-40 on an MNIST net: images a CPU second, ours against torchattacks and foolbox, alternating in one run.

    python experiments/benchmarks/attacks.py --weights=NET.npz

Linf 0.1, 40 steps of 2.5 eps / 40 from a random start, float32, the same images, net and weights for all (`parity.py`;
without --weights random ones), all on one core and one thread. foolbox runs on JAX: given the net as it is, operation
by operation, and given the net under `jax.jit`. The accuracies under attack show that the work is the same.

torch is in the extra [bench]. The others are asked for without what they pull in, old versions of our own needs:
`pip install --no-deps torchattacks foolbox eagerpy GitPython gitdb smmap`. What is missing is left out.
"""

import argparse
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from parity import load_layers, mnist_test, use_one_core
from train_step import Run, alternate

from robustgen import attacks, threats
from robustgen.core import Net
from robustgen.models.sequential import sequential

EPS, NUM_STEPS = 0.1, 40
STEP_SIZE = 2.5 * EPS / NUM_STEPS
MISSING = "{} is left out, {} is not installed: see --help"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, help="NET.npz, beside NET.json; default: random weights")
    parser.add_argument("--batch", type=int, default=250, help="images attacked at a time")
    parser.add_argument("--rounds", type=int, default=9, help="alternations that medians are taken over")
    parser.add_argument("--core", type=int, help="the core to run on; default: the first")
    args = parser.parse_args()
    core = use_one_core(args.core)
    layers, arrays, shape = load_layers(args.weights)
    x, y, whence = mnist_test(args.batch)
    net, found = sequential(layers, arrays, shape=shape), {}
    runs = {"robustgen": ours(net, x, y, found)}
    for name, make in {
        "torchattacks": lambda: torchattacks_run(layers, arrays, x, y, found),
        "foolbox": lambda: foolbox_run("foolbox", net, x, y, found),
        "foolbox, jitted net": lambda: foolbox_run("foolbox, jitted net", jax.jit(lambda z: net(z)), x, y, found),
    }.items():
        try:
            runs[name] = make()
        except ImportError as error:
            print(MISSING.format(name, error.name), file=sys.stderr)
    weights = args.weights or "random weights"
    print(f"PGD-{NUM_STEPS}, {args.batch} {whence}, {weights}, core {core}, jax {jax.__version__}")
    report(net, alternate(runs, args.rounds), found, y)


def ours(net: Net, x: np.ndarray, y: np.ndarray, found: dict[str, np.ndarray]) -> Run:
    """Each run, here and below, attacks every image and leaves x_adv [B, H, W, C] in `found`."""
    attack = attacks.pgd(threats.linf(EPS), objective=attacks.cross_entropy, step_size=STEP_SIZE, num_steps=NUM_STEPS)
    args = net, jnp.asarray(x), jnp.asarray(y), jax.random.key(0)
    compiled = jax.jit(attack).lower(*args).compile()

    def run() -> int:
        found["robustgen"] = np.asarray(compiled(*args))
        return len(x)

    return run


def torchattacks_run(layers: list[dict], arrays: dict, x: np.ndarray, y: np.ndarray, found: dict) -> Run:
    """The same in torch. Raises ImportError without it or torchattacks."""
    import torch
    import torchattacks
    from torch_nets import plain

    torch.set_num_threads(1)
    attack = torchattacks.PGD(plain(layers, arrays).eval(), eps=EPS, alpha=STEP_SIZE, steps=NUM_STEPS)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()

    def run() -> int:
        found["torchattacks"] = attack(images, labels).permute(0, 2, 3, 1).numpy()
        return len(x)

    return run


def foolbox_run(name: str, logits_fn, x: np.ndarray, y: np.ndarray, found: dict) -> Run:
    """The same in foolbox, on JAX. Raises ImportError without it or one of its dependencies."""
    import foolbox

    model = foolbox.models.JAXModel(logits_fn, bounds=(0, 1), data_format="channels_last")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=NUM_STEPS, random_start=True)
    images, goal = jnp.asarray(x), foolbox.criteria.Misclassification(jnp.asarray(y))

    def run() -> int:
        found[name] = np.asarray(attack.run(model, images, goal, epsilon=EPS))
        return len(x)

    return run


def report(net: Net, seconds: dict[str, np.ndarray], found: dict[str, np.ndarray], y: np.ndarray) -> None:
    """A line per run: images a CPU second (median and best), how many times as many ours are (median of the ratios
    within a round), and the accuracy that it leaves."""
    print(f"{'':22}{'images / CPU s':>15}{'best':>8}{'ours / it':>11}{'[least, most]':>17}{'accuracy left':>15}")
    for name, values in seconds.items():
        cpu, ratio = values[:, 1], values[:, 1] / seconds["robustgen"][:, 1]
        spread = f"[{ratio.min():.2f}, {ratio.max():.2f}]"
        right = np.mean(np.asarray(net(found[name])).argmax(-1) == y)
        speeds = f"{1 / np.median(cpu):15.0f}{1 / cpu.min():8.0f}{np.median(ratio):11.2f}"
        print(f"{name:22}{speeds}{spread:>17}{100 * right:14.1f}%")


if __name__ == "__main__":
    main()
