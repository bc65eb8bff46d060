"""Kills an AutoAttack evaluation with SIGKILL at random times, resumes it, and compares it with an undisturbed one.

    python experiments/reliability/cascade_kills.py --runs=30

A small net, trained on digits here, is attacked on test images by a process of its own: APGD-CE, APGD-T, FAB-T and a
shorter Square, with a journal. A run is started, killed at a time drawn from the length of an undisturbed attack, and
started again by the same command, up to `--kills` times, then left to its end. Compared are all columns and all x_adv,
byte for byte.
"""

import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

from robustgen import data, log
from robustgen.attacks import autoattack, objectives
from robustgen.attacks.search import Cascade
from robustgen.attacks.square import square_linf
from robustgen.cascade import evaluate
from robustgen.core import Net
from robustgen.data.source import scaled
from robustgen.files import replace_file
from robustgen.models.sequential import sequential

_RUNS = flags.DEFINE_integer("runs", 30, "How many evaluations to disturb.", lower_bound=1)
_KILLS = flags.DEFINE_integer("kills", 3, "How often to kill each, at most.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 80, "Test images.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Draws the times.")
_ATTACK = flags.DEFINE_string("attack", None, "For the processes that are killed: the folder of one run.")

EPS, STARTED = 0.1, "attacking"
LAYERS = [
    {"type": "flatten", "order": "NHWC"}, {"type": "dense", "w": "0_w", "b": "0_b", "layout": "in,out"},
    {"type": "relu"}, {"type": "dense", "w": "1_w", "b": "1_b", "layout": "in,out"},
]  # fmt: skip


class Run(NamedTuple):
    """A run to its end: how large the journal was at each kill, the table that it left, and how many seconds the last
    process attacked, compilation included."""

    sizes: list[int]
    table: bytes
    seconds: float


def main(_: list[str]) -> None:
    """Prints how many kills left no trace."""
    log.hush()
    logging.set_verbosity(logging.ERROR)
    if _ATTACK.value:
        return attack(pathlib.Path(_ATTACK.value))
    draw, folder = random.Random(_SEED.value), pathlib.Path(tempfile.mkdtemp())
    np.savez(folder / "net.npz", **trained())
    to_end(folder / "first", draw, 0, 0.0)  # compiles, into a cache that all others read
    _, expected, seconds = to_end(folder / "whole", draw, 0, 0.0)
    size = journal_size(folder / "whole")
    log.say(f"undisturbed  {seconds:.1f} s, a journal of {size} bytes, {len(expected)} bytes compared")
    kills = 0
    for number in range(_RUNS.value):
        sizes, table, _ = to_end(folder / str(number), draw, _KILLS.value, seconds)
        if table != expected:
            sys.exit(f"DIFFERS      {folder / str(number)}, killed with a journal of {sizes} bytes")
        kills += len(sizes)
        seconds *= 1.0 if sizes else 0.7  # the machine was busier at the beginning
        log.say(f"run {number:<8} identical, killed with a journal of {sizes} bytes")
    log.say(f"kill -9      {kills} of {kills} resumed to a byte-identical table, in {_RUNS.value} runs")


def to_end(folder: pathlib.Path, draw: random.Random, kills: int, seconds: float) -> Run:
    """Runs to the end in spite of up to `kills` kills, each `draw`n from 0 to `seconds` after the attack has begun."""
    folder.mkdir()
    sizes = []
    while (took := attacked(folder, draw.uniform(0, seconds) if len(sizes) < kills else None)) is None:
        sizes.append(journal_size(folder))
    return Run(sizes, (folder / "table").read_bytes(), took)


def attacked(folder: pathlib.Path, limit: float | None) -> float | None:
    """Seconds of attacking; None where it was killed after `limit`. Raises where it fails by itself."""
    words = [sys.executable, __file__, f"--attack={folder}", f"--examples={_EXAMPLES.value}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder.parent}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with subprocess.Popen(words, env={**os.environ, **cache}, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        begin = time.monotonic()
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    if status:
        raise RuntimeError(f"the attack ended with status {status}")
    return time.monotonic() - begin


def journal_size(folder: pathlib.Path) -> int:
    path = folder / "journal"
    return path.stat().st_size if path.exists() else 0


def attack(folder: pathlib.Path) -> None:
    """The evaluation, begun or resumed; leaves `table` in `folder`."""
    with np.load(folder.parent / "net.npz") as arrays:
        net = sequential(LAYERS, dict(arrays), shape=(8, 8, 1))
    x, y = images("test")
    print(STARTED, flush=True)
    found = evaluate(cascade(), net, x[: _EXAMPLES.value], y[: _EXAMPLES.value], seed=0, journal=folder / "journal")
    table = io.BytesIO()
    for name, column in sorted({**found.columns, "x_adv": found.x_adv}.items()):
        table.write(name.encode())
        np.save(table, column)
    replace_file(folder / "table", table.getvalue())


def cascade() -> Cascade:
    """AutoAttack in the Linf ball, with a tenth of the queries."""
    whole = autoattack.standard(autoattack.LINF, eps=EPS)
    short = square_linf(eps=EPS, clip=(0.0, 1.0), p_init=0.8, num_queries=500, num_restarts=1)
    return whole._replace(searches=(*whole.searches[:-1], short))


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """x [N, 8, 8, 1] in [0, 1] and y [N] of digits."""
    source = data.digits(num_validation=100)
    return scaled(source.load(split), source.scale)


def trained() -> dict[str, np.ndarray]:
    """The arrays of an MLP after 100 steps of Adam on the whole training split, each on signed-gradient examples: some
    images stay robust to the end of the cascade, others fall to each of its attacks."""
    x, y = map(jnp.asarray, images("train"))
    first, second = jax.random.split(jax.random.key(0))
    params = {"0_w": jax.random.normal(first, (64, 100)) / 8, "0_b": jnp.zeros(100),
              "1_w": jax.random.normal(second, (100, 10)) / 10, "1_b": jnp.zeros(10)}  # fmt: skip
    tx, shape = optax.adam(0.01), (8, 8, 1)
    apply_fn = sequential(LAYERS, {k: np.asarray(v) for k, v in params.items()}, shape=shape).apply_fn

    def loss(params, x):
        return jnp.mean(objectives.cross_entropy(Net(params, {}, apply_fn)(x), y))

    @jax.jit
    def step(carry, _):
        params, state = carry
        x_adv = jnp.clip(x + EPS * jnp.sign(jax.grad(loss, argnums=1)(params, x)), 0, 1)
        updates, state = tx.update(jax.grad(loss)(params, x_adv), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.device_get(jax.lax.scan(step, (params, tx.init(params)), None, 100)[0][0])


if __name__ == "__main__":
    app.run(main)
