"""Population training against one run after the other: 16 TRADES MLPs on digits, 20 epochs (8 betas x 2 seeds).

    python experiments/benchmarks/population.py --rounds=3 --launches=16

Three ways, alternating within a round: a population in one compile, its members spread over the cores as
experiments/tradeoff.py does; the 16 runs one after the other in this process, which share one compile, each with all
cores to itself; and launches of experiments/train.py, one process a run. Compilation is included everywhere, from empty
caches. Prints wall and CPU seconds, medians over rounds, and ratios.
"""

import functools
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
from absl import flags

from robustgen import log, parallel, population, study, workflow
from robustgen.config import app
from robustgen.core import TrainState
from robustgen.data.source import Split

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternations.", lower_bound=1)
_LAUNCHES = flags.DEFINE_integer("launches", 16, "Processes to launch, once; scaled to 16 if fewer.", lower_bound=0)
ROOT = pathlib.Path(__file__).parents[2]
CONFIG, EPOCHS = "configs/digits_trades.py", "--config.training.num_epochs=20"
SPAN = 40
BETAS = "loss.beta=0,0.5,1,2,3,6,9,12"


def main(run: app.Run) -> None:
    """Measures, and prints a row for each way."""
    log.hush()
    parallel.use_cores()
    run.config.training.num_epochs = 20
    plan = workflow.plan(run.config)
    members = study.members(run.config, [BETAS], 2)
    ways = {"population": [members], "one after the other": singles(members)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(_ROUNDS.value):
        for name, groups in ways.items():
            jax.clear_caches()
            times[name].append(seconds(lambda groups=groups: train_members(plan, groups)))
    if _LAUNCHES.value:
        wall, _ = seconds(lambda: launch(_LAUNCHES.value))
        times["16 launches"] = [(wall * 16 / _LAUNCHES.value, float("nan"))]
    base = statistics.median(wall for wall, _ in times["population"])
    log.say(f"{'way':22} {'median s':>9} {'min s':>7} {'CPU s':>7} {'rounds':>7} {'against population':>19}")
    for name, measured in times.items():
        walls, cpus = zip(*measured, strict=True)
        median, cpu = statistics.median(walls), statistics.median(cpus)
        log.say(f"{name:22} {median:9.1f} {min(walls):7.1f} {cpu:7.1f} {len(walls):7} {median / base:18.2f}x")


def train_members(plan: workflow.Plan, groups: list[population.Population]) -> None:
    """Trains one group after the other with the same compiled step; seeds and values are its arguments."""
    at, net = functools.partial(workflow.learner_at, plan), functools.partial(workflow.init_net, plan)
    init = jax.jit(lambda group: population.init_population(at, net, group))
    backend = parallel.members(len(groups[0].seeds))
    split = backend.place(plan.recipe.data.load("train"))

    def step(state: TrainState, data: tuple[dict[str, jax.Array], Split], *, length: int) -> tuple[TrainState, dict]:
        values, split = data
        return population.population_chunk(at, workflow.batches(plan, split), state, values, length=length)

    compiled = functools.cache(lambda length: backend.compile(functools.partial(step, length=length)))
    for group in groups:
        state = init(group)
        for done in range(0, plan.num_steps, SPAN):
            state, _ = compiled(min(SPAN, plan.num_steps - done))(state, (group.values, split))
        jax.block_until_ready(state.params)


def singles(members: population.Population) -> list[population.Population]:
    """Each member as a population of its own."""
    return [jax.tree.map(lambda column, i=i: column[i : i + 1], members) for i in range(len(members.seeds))]


def launch(count: int) -> None:
    """`count` runs of the script, one process after the other."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            subprocess.run(
                [sys.executable, ROOT / "experiments/train.py", f"--config={ROOT / CONFIG}", EPOCHS, "--quiet",
                 f"--workdir={folder}/{i}", f"--config.seed={i}"], check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    app.run(main, str(ROOT / CONFIG))
