"""Projections onto threat sets inside attack steps, per set and size of batch, and what a sort alone would take.

    python experiments/benchmarks/projections.py

CPU milliseconds a call, least of 20. Requests are members with noise of deviation 0.1 added, as an attack step asks
for, of images a third of whose pixels are black or white.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen import threats
from robustgen.core import Array, Key

BATCHES = {"MNIST": (250, 28, 28, 1), "CIFAR-10": (128, 32, 32, 3)}
SETS = {
    "linf": threats.linf(8 / 255), "l2": threats.l2(0.5), "l1": threats.l1(12.0), "l0": threats.l0(20),
    "l0_pixels": threats.l0_pixels(20),
}  # fmt: skip
REPEATS = 20


def main() -> None:
    print(f"{'':12}" + "".join(f"{name:>12}" for name in (*SETS, "sort")))
    for name, shape in BATCHES.items():
        x, noise = images(shape, jax.random.key(0))
        row = [milliseconds(threat.project, x, threat.project(x, x + noise) + noise) for threat in SETS.values()]
        row.append(milliseconds(lambda z: jnp.sort(z.reshape(len(z), -1), -1), x + noise))
        print(f"{name:12}" + "".join(f"{value:12.2f}" for value in row), flush=True)


def images(shape: tuple[int, ...], key: Key) -> tuple[Array, Array]:
    """Images and noise."""
    draw = jax.random.uniform(key, shape, minval=-0.25, maxval=1.25)
    return jnp.clip(draw, 0.0, 1.0), 0.1 * jax.random.normal(jax.random.fold_in(key, 1), shape)


def milliseconds(call: Callable, *arrays: Array) -> float:
    """Least CPU time of one compiled call."""
    compiled, times = jax.jit(call), []
    jax.block_until_ready(compiled(*arrays))
    for _ in range(REPEATS):
        begin = time.process_time()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.process_time() - begin)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
