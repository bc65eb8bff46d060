"""What certified accuracy costs: every certified loss at every weight of its bound, from adversarial to certified.

    python experiments/pareto.py --workdir=runs/pareto

Trains a population (weights x seeds) of each method on digits, attacks and certifies all, and writes pareto.svg, the
table and report.html. The same command resumes; `--config.*` changes all populations.

    python experiments/pareto.py --methods=sabr,mtl_ibp --sweep=loss.alpha=0.01,0.1 --sweep=loss.tau=0.1,0.5 --seeds=2
"""

import pathlib

from absl import flags

from robustgen import log, parallel, preemption, study, workdir, workflow
from robustgen.config import ConfigError, app
from robustgen.evaluation.draw import svg
from robustgen.evaluation.pareto import pareto
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import summarize
from robustgen.files import replace_file
from robustgen.measure import radius
from robustgen.publish import publish

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/digits_ibp.py")
SWEEPS = {
    "ibp": "loss.kappa.end=0.99,0.9,0.75,0.5,0",
    "crown_ibp": "loss.kappa.end=0.99,0.9,0.75,0.5,0",
    "sabr": "loss.tau=0.1,0.3,0.5,0.7,0.9",
    "mtl_ibp": "loss.alpha=0.01,0.1,0.25,0.5,0.75",
    "cc_ibp": "loss.alpha=0.01,0.1,0.25,0.5,0.75",
    "exp_ibp": "loss.alpha=0.01,0.1,0.25,0.5,0.75",
}

_METHODS = flags.DEFINE_list("methods", list(SWEEPS), "Which losses: digits_NAME is their config.")
_SWEEP = flags.DEFINE_multi_string("sweep", [], "FIELD=VALUE,...: other values, for the methods that have the field.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds per setting.", lower_bound=1)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def main(run: app.Run) -> None:
    """A population of each method, then one report and one picture of all."""
    log.hush(_QUIET.value)
    parallel.use_cores()
    if run.path_and_arg != CONFIG or not set(_METHODS.value) <= set(SWEEPS):
        raise ConfigError("--methods", f"must be of {', '.join(SWEEPS)}, without --config: each has its own")
    fields = list(dict.fromkeys(_field(SWEEPS[name]) for name in _METHODS.value))
    for sweep in _SWEEP.value:
        if _field(sweep) not in fields:
            raise ConfigError(f"--sweep={sweep}", f"is of none of the methods: theirs are {', '.join(fields)}")
    folder = pathlib.Path(run.workdir or "runs/pareto")
    parts = {name: folder / name for name in _METHODS.value}
    with preemption.deferred_signals():
        runs = [found for name in parts for found in _population(run, name, parts[name])]
        title = "Digits: what certified accuracy costs"
        publish(runs, folder, title=title, eps=radius(run.config), records=list(parts.values()))
    picture = replace_file(folder / "report" / "pareto.svg", svg(pareto(summarize(runs).rows), "pareto").encode())
    log.say(f"picture  {picture}")


def _population(run: app.Run, name: str, folder: pathlib.Path) -> list[Run]:
    """Trains and measures one method's grid. The curves over radii, which cost most, are left out."""
    assignments = ("evaluation.curve=()", *run.assignments)
    config, base = app.resolve(str(ROOT / f"configs/digits_{name}.py"), assignments)
    given = [sweep for sweep in _SWEEP.value if _field(sweep) == _field(SWEEPS[name])]
    members = study.members(config, given or [SWEEPS[name]], _SEEDS.value)
    plan = workdir.open_run(run._replace(config=config, base=base, assignments=assignments), folder, members)
    nets = workflow.train_many(plan, folder, members, backend=parallel.members(len(members.seeds)))
    with preemption.interruptible():
        return study.study_many(plan, nets, members, study.method_of(config), folder)


def _field(sweep: str) -> str:
    return sweep.partition("=")[0]


if __name__ == "__main__":
    app.run(main, CONFIG, expected=workdir.ERRORS)
