"""Measures what train.py left in a folder: clean, robust and certified accuracy, their gaps, and a report.

    python experiments/evaluate.py --config=configs/digits_trades.py --workdir=runs/digits_trades
"""

from absl import flags

from robustgen import checkpoint, log, preemption, study, workflow

from robustgen.config import app
from robustgen.data.source import DataError
from robustgen.evaluation import results
from robustgen.publish import publish

_METHOD = flags.DEFINE_string("method", None, "Name of the method in tables; default: the loss's.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Evaluates one net; the runs, tables and report.html go to WORKDIR/report."""
    log.hush(_QUIET.value)
    with preemption.deferred_signals(), preemption.interruptible():
        plan, folder = workflow.open_run(run)
        net = workflow.load_net(plan, folder)
        measured = study.study_one(plan, net, _METHOD.value or study.method_of(run.config), folder)
        title = f"{plan.recipe.data.name}: {measured.method}"
        publish([measured], folder, title=title, eps=run.config.evaluation.threat.eps)


if __name__ == "__main__":
    app.run(main, expected=(DataError, checkpoint.CheckpointError, results.ResultsError))
