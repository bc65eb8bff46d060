"""The trade-off on real data in two minutes: TRADES at five betas and certified training, three seeds each, on digits.

    python experiments/quickstart.py

Trains two populations (15 nets and 3), attacks and certifies all, and writes a table and report.html. The same command
resumes; `--config.*` changes both populations.
"""

import pathlib
import time

from robustgen import log

START = time.monotonic()
log.note("robustgen quickstart: TRADES, 5 betas x 3 seeds, and IBP x 3 seeds on digits, Linf eps 0.1; about a minute")

from absl import flags  # noqa: E402  after the first line, since what follows takes seconds to import

from robustgen import parallel, preemption, study, workdir, workflow  # noqa: E402
from robustgen.config import ConfigError, app  # noqa: E402
from robustgen.measure import radius  # noqa: E402
from robustgen.publish import publish  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/digits_trades.py")
POPULATIONS = {"trades": ["loss.beta=0,1,3,6,12"], "ibp": []}

_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds per setting.", lower_bound=1)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Runs both populations, then one report of all."""
    log.hush(_QUIET.value)
    parallel.use_cores()
    if run.path_and_arg != CONFIG:
        raise ConfigError("--config", "is not for quickstart.py, which has its own; see tradeoff.py")
    folder = pathlib.Path(run.workdir or "runs/quickstart")
    parts = {name: folder / name for name in POPULATIONS}
    with preemption.deferred_signals():
        runs = []
        for name, sweeps in POPULATIONS.items():
            config, base = app.resolve(str(ROOT / f"configs/digits_{name}.py"), run.assignments)
            part = run._replace(config=config, base=base)
            members = study.members(config, sweeps, _SEEDS.value)
            plan = workdir.open_run(part, parts[name], members)
            backend = parallel.members(len(members.seeds))
            nets = workflow.train_many(plan, parts[name], members, backend=backend)
            with preemption.interruptible():
                runs += study.study_many(plan, nets, members, study.method_of(config), parts[name])
        publish(
            runs, folder, title="Digits: the price of robustness", eps=radius(config),
            records=list(parts.values()),
        )  # fmt: skip
    log.note(f"done in {log.clock_time(time.monotonic() - START)}; next: experiments/tradeoff.py, train.py")


if __name__ == "__main__":
    app.run(main, CONFIG, expected=workdir.ERRORS)
