"""Trains what a config describes. The same command resumes; evaluate.py measures the result.

    python experiments/train.py --config=configs/digits_trades.py --workdir=runs/digits_trades --config.loss.beta=3
"""

import jax
from absl import flags

from robustgen import log, parallel, preemption, workdir, workflow
from robustgen.config import app

_BACKENDS = {"jit": parallel.jit, "shard_map": parallel.shard_map, "pmap": parallel.pmap}
_BACKEND = flags.DEFINE_enum("backend", "jit", list(_BACKENDS), "What runs the step on many devices; same numbers.")
_DEVICES = flags.DEFINE_integer("devices", None, "Devices to train on; default all.", lower_bound=1)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, or 'auto' (TPU pod, SLURM).")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
_SAVE = flags.DEFINE_float("save_seconds", 30.0, "At most so much work is lost to kill -9.", lower_bound=0.0)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Trains, and says where the result is."""
    if _COORDINATOR.value:
        parallel.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    log.hush(_QUIET.value or jax.process_index() > 0)
    with preemption.deferred_signals():
        folder = workdir.folder_of(run)
        plan = workdir.open_run(run, folder)
        backend = _BACKENDS[_BACKEND.value](num_devices=_DEVICES.value)
        workflow.train_one(plan, folder, backend=backend, save_seconds=_SAVE.value)
    log.say(f"trained  {plan.num_steps} steps, in {folder}; next: experiments/evaluate.py, same --config and --workdir")


if __name__ == "__main__":
    app.run(main, expected=workdir.ERRORS)
