"""On how large an L2 ball does a smoothed net provably keep its class? Trains, and certifies as Cohen et al. do.

    python experiments/smoothing.py --config=configs/digits_gaussian.py --workdir=runs/digits_gaussian

Trains the config's net (or loads it from WORKDIR) and certifies the smoothed one on the test split: --num_selection
samples choose a class, --num_samples judge it, each certificate fails with probability at most --alpha. Noise is the
training's unless --sigma says otherwise. The same command resumes, after kill -9 too, to the same numbers. Tables,
curve.csv and curve.svg are in WORKDIR/smoothing_SIGMA; --beside=FOLDER,... puts other such folders beside this one.
"""

import pathlib

from absl import flags

from robustgen import log, parallel, preemption, smoothed, study, workdir, workflow
from robustgen.certify.smoothing import plan as plan_of
from robustgen.config import ConfigError, app

_SIGMA = flags.DEFINE_float("sigma", None, "Noise of the certificate; default: the loss's.", lower_bound=0)
_SELECTION = flags.DEFINE_integer("num_selection", 100, "Samples that choose the class (n0).", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("num_samples", 100_000, "Samples that judge it (n).", lower_bound=1)
_ALPHA = flags.DEFINE_float("alpha", 0.001, "How often a certificate may be wrong.", 1e-12, 0.499)
_RADII = flags.DEFINE_list("radii", ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5"], "Radii of the table, in L2.")
_BESIDE = flags.DEFINE_list("beside", [], "Other folders smoothing_SIGMA to put into table and picture.")
_NAME = flags.DEFINE_string("name", None, "Name of the training in tables; default: the loss's.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def sigma_of(run: app.Run) -> float:
    """The flag's, or that of the loss. Raises `ConfigError` where there is neither."""
    sigma = _SIGMA.value if _SIGMA.value is not None else getattr(run.config.loss, "sigma", None)
    if not isinstance(sigma, (int, float)):
        raise ConfigError("--sigma", "is needed: the config's loss has no noise of one size")
    return sigma


def radii() -> list[float]:
    """The flag's. Raises `ConfigError` for what is no radius."""
    try:
        found = sorted(float(text) for text in _RADII.value)
    except ValueError as error:
        raise ConfigError("--radii", f"takes numbers: {error}") from error
    if not found or not found[0] >= 0:
        raise ConfigError("--radii", f"takes radii >= 0; got {','.join(_RADII.value)}")
    return found


def main(run: app.Run) -> None:
    """Trains, certifies, and leaves all in WORKDIR/smoothing_SIGMA."""
    log.hush(_QUIET.value)
    sigma, at = sigma_of(run), radii()
    drawn = plan_of(sigma=sigma, num_selection=_SELECTION.value, num_samples=_SAMPLES.value)
    with preemption.deferred_signals():
        folder = workdir.folder_of(run)
        plan = workdir.open_run(run, folder)
        net = workflow.train_one(plan, folder, backend=parallel.jit())
        with preemption.interruptible():
            name, out = _NAME.value or study.method_of(run.config), folder / f"smoothing_{sigma:g}"
            own = smoothed.certify_test_split(net, plan.recipe, drawn, alpha=_ALPHA.value, name=name, folder=out)
            smoothed.publish([own, *(smoothed.read(pathlib.Path(other)) for other in _BESIDE.value)], at, out)


if __name__ == "__main__":
    app.run(main, expected=(*workdir.ERRORS, smoothed.JournalError, OSError))
