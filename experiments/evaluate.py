"""Measures what train.py left in a folder: clean, robust and certified accuracy, their gaps, and a report.

    python experiments/evaluate.py --config=configs/digits_trades.py --workdir=runs/digits_trades

Takes the `--config.*` that train.py was given; those of `evaluation` may differ.
"""

from absl import flags

from robustgen import log, preemption, study, workdir, workflow
from robustgen.config import app
from robustgen.measure import radius
from robustgen.publish import publish

_METHOD = flags.DEFINE_string("method", None, "Name of the method in tables; default: the loss's.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Evaluates one net; the runs, tables and report.html go to WORKDIR/report."""
    log.hush(_QUIET.value)
    with preemption.deferred_signals(), preemption.interruptible():
        folder = workdir.folder_of(run)
        plan = workdir.reopen_run(run, folder)
        net = workflow.load_net(plan, folder)
        measured = study.study_one(plan, net, _METHOD.value or study.method_of(run.config), folder)
        workdir.record(run, plan, folder / "report")  # apart from that of the training
        title, eps = f"{plan.recipe.data.name}: {measured.method}", radius(run.config)
        publish([measured], folder, title=title, eps=eps, records=[folder / "report"])


if __name__ == "__main__":
    app.run(main, expected=workdir.ERRORS)
