"""The PGD-10 training step, ours against torch in eager mode, alternating in one run.

    python experiments/benchmarks/train_step.py --net=resnet8

One step: ten signed-gradient steps from a random start against the net in evaluation mode, then one update by SGD with
momentum 0.9 in training mode, float32. Further rows: the step inside `lax.scan`, and (`--native`, slow) the same with
XLA's own convolution gradients. torch runs channels-last, on as many threads as there are cores, as XLA does; where it
is missing (`pip install -e '.[bench]'`) its row is left out. Times are wall seconds a step.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustgen import models, threats
from robustgen.attacks import objectives
from robustgen.attacks.pgd import pgd
from robustgen.core import Batch, Net
from robustgen.losses.pgd_at import pgd_at
from robustgen.models.conv import native_gradients

EPS, STEP_SIZE, NUM_STEPS, LEARNING_RATE, MOMENTUM = 8 / 255, 2 / 255, 10, 0.01, 0.9
NETS = {"small_cnn": (models.small_cnn, (28, 28, 1)), "resnet8": (models.resnet8, (32, 32, 3))}
SCAN_LENGTH = 4

Run = Callable[[], int]
"""Does some steps and returns how many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, default="resnet8")
    parser.add_argument("--batch", type=int, default=128, help="examples a step")
    parser.add_argument("--rounds", type=int, default=9, help="alternations that medians are taken over")
    parser.add_argument("--native", action="store_true", help="also time XLA's own gradients inside lax.scan")
    args = parser.parse_args()
    factory, shape = NETS[args.net]
    rng = np.random.default_rng(0)
    x, y = rng.random((args.batch, *shape), np.float32), rng.integers(0, 10, args.batch, np.int32)
    net = models.init(factory(num_classes=10), shape, jax.random.key(0))
    batch = Batch(jnp.asarray(x), jnp.asarray(y))

    runs = {"robustgen": jax_run(net, batch, 1), "robustgen in lax.scan": jax_run(net, batch, SCAN_LENGTH)}
    try:
        runs["torch eager"] = torch_run(args.net, x, y)
    except ImportError:
        print("torch is not installed and its row left out: pip install -e '.[bench]'", file=sys.stderr)
    print(f"{args.net}, batch {args.batch}, {os.cpu_count()} cores, jax {jax.__version__}, {jax.default_backend()}")
    report(alternate(runs, args.rounds))
    if args.native:
        with native_gradients():
            report(alternate({"XLA's gradients in lax.scan": jax_run(net, batch, 2)}, 1))


def jax_run(net: Net, batch: Batch, num_steps: int) -> Run:
    """`num_steps` training steps a call: compiled as they are if one, else in a `lax.scan`."""
    tx = optax.sgd(LEARNING_RATE, MOMENTUM)
    attack = pgd(threats.linf(EPS), objective=objectives.cross_entropy, step_size=STEP_SIZE, num_steps=NUM_STEPS)
    loss = pgd_at(attack)

    def step(carry, key):
        net, opt_state = carry
        objective = lambda params: loss(Net(params, net.state, net.apply_fn), batch, key)  # noqa: E731
        gradients, aux = jax.grad(objective, has_aux=True)(net.params)
        updates, opt_state = tx.update(gradients, opt_state)
        return (Net(optax.apply_updates(net.params, updates), aux.state, net.apply_fn), opt_state), None

    carry, keys = (net, tx.init(net.params)), jax.random.split(jax.random.key(1), num_steps)
    many = lambda carry, keys: jax.lax.scan(step, carry, keys)[0]  # noqa: E731
    once = lambda carry, keys: step(carry, keys[0])[0]  # noqa: E731
    compiled = jax.jit(once if num_steps == 1 else many).lower(carry, keys).compile()

    def run() -> int:
        nonlocal carry
        carry = jax.block_until_ready(compiled(carry, keys))
        return num_steps

    return run


def torch_run(name: str, x: np.ndarray, y: np.ndarray) -> Run:
    """The same step in torch. Raises ImportError without it."""
    import torch
    import torch.nn.functional as F
    from torch_nets import NETS as TORCH_NETS

    torch.set_num_threads(os.cpu_count())
    net = TORCH_NETS[name]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(y).long()

    def run() -> int:
        net.eval()
        x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(NUM_STEPS):
            x_adv.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y, reduction="sum"), x_adv)
            x_adv = x_adv.detach() + STEP_SIZE * gradient.sign()
            x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS).clamp(0, 1)
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x_adv), y).backward()
        optimizer.step()
        return 1

    return run


def alternate(runs: dict[str, Run], rounds: int) -> dict[str, np.ndarray]:
    """Wall and CPU seconds a step, [rounds, 2], of each run: a warm-up, then each in turn, so that all share what else
    the machine does."""
    for run in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            num_steps = run()
            seconds[name].append(((time.perf_counter() - wall) / num_steps, (time.process_time() - cpu) / num_steps))
    return {name: np.array(values) for name, values in seconds.items()}


def report(seconds: dict[str, np.ndarray]) -> None:
    """A line per run: median and least wall and CPU seconds a step, and medians of their ratios to the last run."""
    last = list(seconds.values())[-1]
    print(f"{'':28} wall: median   least   ratio    CPU: median   least   ratio")
    for name, values in seconds.items():
        columns = np.stack([np.median(values, 0), np.min(values, 0), np.median(values / last, 0)])
        (a, b, c), (d, e, f) = columns.T
        print(f"{name:28} {a:12.3f} {b:7.3f} {c:7.2f} {d:14.3f} {e:7.3f} {f:7.2f}", flush=True)


if __name__ == "__main__":
    main()
