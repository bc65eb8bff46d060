"""Measures what train.py left in a folder: clean, robust and certified accuracy, their gaps, and a report.

    python experiments/evaluate.py --config=configs/digits_trades.py --workdir=runs/digits_trades

Takes the `--config.*` that train.py was given; those of `evaluation` may differ. AutoAttack (standard) runs first;
other attacks of the config are columns beside it. A killed evaluation resumes; --narrow=0.05 attacks no more examples
than an interval of five points takes. Then the evaluation itself is examined: findings say what looks wrong and what to
do (--validity=0 leaves it out).
"""

from absl import flags

from robustgen import log, preemption, robustness, study, workdir, workflow
from robustgen.config import app
from robustgen.examine import autoattack_in_short, examine, first_attack
from robustgen.measure import radius
from robustgen.publish import publish

_METHOD = flags.DEFINE_string("method", None, "Name of the method in tables; default: the loss's.")
_AUTOATTACK = flags.DEFINE_enum("autoattack", "standard", [*robustness.VERSIONS, "off"], "Version of AutoAttack.")
_CERTIFY = flags.DEFINE_bool("certify_first", True, "AutoAttack skips what the config's first certifier verifies.")
_NARROW = flags.DEFINE_float(
    "narrow", None, "Attack until the interval is this narrow (0.05: five points).", 0.001, 1.0
)
_VALIDITY = flags.DEFINE_integer(
    "validity", 100, "Test examples that the evaluation itself is checked on: is its attack to be believed? 0: none.", 0
)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """Evaluates one net; the runs, tables and report.html go to WORKDIR/report."""
    log.hush(_QUIET.value)
    with preemption.deferred_signals(), preemption.interruptible():
        folder = workdir.folder_of(run)
        version = robustness.VERSIONS.get(_AUTOATTACK.value)
        cascade = robustness.cascade_of(run.config, version) if version else None
        plan = workdir.reopen_run(run, folder)
        net, more, count = workflow.load_net(plan, folder), None, None
        if cascade:
            journal = folder / "report" / f"{_AUTOATTACK.value}.journal"
            certifier = robustness.first_certifier(plan.recipe) if _CERTIFY.value else None
            more = robustness.attack_test_split(
                cascade, net, plan.recipe, journal=journal, certifier=certifier, narrow=_NARROW.value
            ).columns
            count = len(more["index"])
        measured = study.study_one(plan, net, _METHOD.value or study.method_of(run.config), folder, more, count)
        workdir.record(run, plan, folder / "report")  # apart from that of the training
        attack = autoattack_in_short(run.config) if cascade else first_attack(run.config, plan.recipe)
        num = _VALIDITY.value
        findings = examine(run.config, plan.recipe, net, attack, num_examples=num) if num else []
        title, eps = f"{plan.recipe.data.name}: {measured.method}", radius(run.config)
        publish([measured], folder, title=title, eps=eps, records=[folder / "report"], findings=findings)


if __name__ == "__main__":
    app.run(main, expected=(*workdir.ERRORS, robustness.JournalError))
