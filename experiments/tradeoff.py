"""The trade-off curve: one knob's values x seeds, trained as one population in one compile, with a report.

    python experiments/tradeoff.py --config=configs/digits_trades.py --sweep=loss.beta=0,1,3,6,12 --seeds=3
"""

from absl import flags

from robustgen import log, parallel, preemption, study, workdir, workflow
from robustgen.config import app
from robustgen.measure import radius
from robustgen.publish import publish

_SWEEP = flags.DEFINE_multi_string("sweep", ["loss.beta=0,1,3,6,12"], "FIELD=VALUE,VALUE,...; several make a grid.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds per setting, from the config's seed on.", lower_bound=1)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Trains and measures the grid; the runs, tables and report.html go to WORKDIR/report."""
    log.hush(_QUIET.value)
    parallel.use_cores()
    folder = workdir.folder_of(run, "_tradeoff")
    members = study.members(run.config, _SWEEP.value, _SEEDS.value)
    with preemption.deferred_signals():
        plan = workdir.open_run(run, folder, members)
        nets = workflow.train_many(plan, folder, members, backend=parallel.members(len(members.seeds)))
        with preemption.interruptible():
            runs = study.study_many(plan, nets, members, study.method_of(run.config), folder)
            title = f"{plan.recipe.data.name}: the price of robustness"
            publish(runs, folder, title=title, eps=radius(run.config))


if __name__ == "__main__":
    app.run(main, "configs/digits_trades.py", expected=workdir.ERRORS)
