"""On how large an L2 ball does a smoothed net provably keep its class? Trains, and certifies as Cohen et al. do.

    python experiments/smoothing.py --config=configs/digits_gaussian.py --workdir=runs/digits_gaussian

Trains the config's net (or loads it from WORKDIR) and certifies the smoothed one on the test split: --num_selection
samples choose a class, --num_samples judge it, each certificate fails with probability at most --alpha. Noise is the
training's unless --sigma says otherwise. The same command resumes, after kill -9 too, to the same numbers. Tables,
curve.csv and curve.svg are in WORKDIR/smoothing_SIGMA; --beside=FOLDER,... puts other such folders beside this one.

Measured by this command for the four digits configs, with --config.loss.sigma=0.25 and 0.5 (500 test images, seed 0,
n = 100 000, alpha 0.001; per cent certified with Wilson's 95 % interval over images, ACR with Student's; 108 to 125 CPU
seconds each on 2 CPU cores that had much other work):

training    | σ   | r=0               | r=0.25            | r=0.5             | r=0.75            | ACR
gaussian    | .25 | 96.8 [94.9, 98.0] | 89.6 [86.6, 92.0] | 65.8 [61.5, 69.8] | 27.4 [23.7, 31.5] | 0.574 [0.553, 0.595]
smoothadv   | .25 | 97.0 [95.1, 98.2] | 90.2 [87.3, 92.5] | 76.0 [72.1, 79.5] | 42.6 [38.3, 47.0] | 0.644 [0.622, 0.667]
MACER       | .25 | 95.8 [93.7, 97.2] | 87.4 [84.2, 90.0] | 66.6 [62.4, 70.6] | 35.2 [31.1, 39.5] | 0.599 [0.575, 0.622]
consistency | .25 | 97.4 [95.6, 98.5] | 91.2 [88.4, 93.4] | 69.4 [65.2, 73.3] | 38.4 [34.2, 42.7] | 0.620 [0.598, 0.642]
gaussian    | .5  | 91.4 [88.6, 93.6] | 75.4 [71.4, 79.0] | 48.0 [43.7, 52.4] | 16.4 [13.4, 19.9] | 0.461 [0.437, 0.486]
smoothadv   | .5  | 90.8 [87.9, 93.0] | 76.2 [72.3, 79.7] | 51.8 [47.4, 56.1] | 24.4 [20.8, 28.4] | 0.501 [0.474, 0.528]
MACER       | .5  | 78.2 [74.4, 81.6] | 63.2 [58.9, 67.3] | 44.2 [39.9, 48.6] | 22.8 [19.3, 26.7] | 0.441 [0.410, 0.473]
consistency | .5  | 76.2 [72.3, 79.7] | 57.8 [53.4, 62.1] | 35.4 [31.3, 39.7] | 14.4 [11.6, 17.7] | 0.373 [0.345, 0.402]

The other knobs are equal at both sigmas and none was searched. At 0.5 that costs consistency: on the validation split
(n = 150, 5000 votes) its ACR is 0.467 [0.424, 0.509] with weight 2 and 0.360 [0.308, 0.412] with weight 10. Beyond
3.8 sigma (0.95 at 0.25) n = 100 000 can certify nothing.
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
