"""Kills a training run with SIGKILL at random times, resumes it, and compares the end with that of an undisturbed run.

    python experiments/reliability/kills.py --kills=50
    python experiments/reliability/kills.py --command='python tests/tiny_run.py --workdir={workdir} --steps=200'

A run is killed again and again until it reaches its end, then a new one is begun. Compared are every array of the last
checkpoint, in `{workdir}/checkpoints`, and `{workdir}/metrics.jsonl`, byte for byte.
"""

import os
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from robustgen import checkpoint, log

_COMMAND = flags.DEFINE_string(
    "command",
    "python experiments/train.py --config=configs/digits_trades.py --workdir={workdir} --save_seconds=0.5",
    "What to run; {workdir} is replaced.",
)
_KILLS = flags.DEFINE_integer("kills", 50, "How often to kill.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Draws the times.")
ROOT = pathlib.Path(__file__).parents[2]


def start(workdir: pathlib.Path) -> subprocess.Popen:
    """The command, silent, with its work in `workdir`."""
    words = [word.replace("{workdir}", str(workdir)) for word in shlex.split(_COMMAND.value)]
    words[0] = sys.executable if words[0] == "python" else words[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(workdir: pathlib.Path) -> tuple:
    """All that a finished run leaves, comparable."""
    step, arrays, _ = checkpoint.load(workdir / "checkpoints")
    described = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    return step, described, (workdir / "metrics.jsonl").read_bytes()


def killed(process: subprocess.Popen, after: float | None) -> bool:
    """Whether the run was still going after `after` seconds, and has been killed. Raises RuntimeError if it failed."""
    try:
        status = process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    if status:
        raise RuntimeError(f"{_COMMAND.value} ended with status {status}")
    return False


def disturbed(workdir: pathlib.Path, draw: random.Random, seconds: float, most: int) -> list[int]:
    """Runs to the end in spite of up to `most` kills; returns the step on the disk at each."""
    steps = []
    while killed(start(workdir), draw.uniform(0, seconds) if len(steps) < most else None):
        steps.append(max(checkpoint.steps(workdir / "checkpoints"), default=0))
    return steps


def main(_: list[str]) -> None:
    """Prints how many kills left no trace."""
    draw, folder = random.Random(_SEED.value), pathlib.Path(tempfile.mkdtemp())
    begin = time.monotonic()
    killed(start(folder / "whole"), None)
    seconds, expected = time.monotonic() - begin, outcome(folder / "whole")
    log.say(f"undisturbed  {seconds:.1f} s, {expected[0]} steps, {len(expected[1])} arrays")
    kills, runs = 0, 0
    while kills < _KILLS.value:
        workdir = folder / str(runs)
        steps = disturbed(workdir, draw, seconds, _KILLS.value - kills)
        if outcome(workdir) != expected:
            sys.exit(f"DIFFERS      {workdir}, killed after steps {steps}")
        kills, runs = kills + len(steps), runs + 1
        if not steps:
            seconds *= 0.7  # the machine was busier at the beginning; most kills would come after the end
        log.say(f"run {runs}        bit-identical after kills at steps {steps}")
    log.say(f"kill -9      {kills} of {kills} resumed to a bit-identical end, in {runs} runs")


if __name__ == "__main__":
    app.run(main)
