"""Measures what a checkpoint costs: `python experiments/reliability/save_cost.py --leaves=20 --megabytes=1`."""

import pathlib
import statistics
import tempfile
import time

import jax
from absl import app, flags, logging

from robustgen import checkpoint, log

_LEAVES = flags.DEFINE_integer("leaves", 20, "Arrays in the state.", lower_bound=1)
_MEGABYTES = flags.DEFINE_float("megabytes", 1.0, "Size of all of them, in float32.", lower_bound=0.001)
_REPEATS = flags.DEFINE_integer("repeats", 20, "How often to save.", lower_bound=2)


def main(_: list[str]) -> None:
    """Prints the time of the first save, the median of the others, and of one restore."""
    logging.set_verbosity(logging.ERROR)
    folder, size = pathlib.Path(tempfile.mkdtemp()), round(_MEGABYTES.value * 250_000 / _LEAVES.value)
    keys = jax.random.split(jax.random.key(0), _LEAVES.value)
    state = jax.block_until_ready({f"leaf{i}": jax.random.normal(key, (size,)) for i, key in enumerate(keys)})
    seconds = []
    for step in range(_REPEATS.value):
        begin = time.perf_counter()
        checkpoint.save(folder, step, state)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    checkpoint.restore(folder, state)
    restored = time.perf_counter() - begin
    others = statistics.median(seconds[1:])
    log.say(f"save {1e3 * others:.0f} ms (the first {1e3 * seconds[0]:.0f} ms), restore {1e3 * restored:.0f} ms")


if __name__ == "__main__":
    app.run(main)
