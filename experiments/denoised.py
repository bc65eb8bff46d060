"""Can a classifier that never saw noise be certified, by a denoiser before it? Salman et al. 2020 (arXiv 2003.01908).

    python experiments/denoised.py --config=configs/digits_standard.py --workdir=runs/digits_denoised --sigma=0.25

Trains the config's net (or loads it from WORKDIR), which is not touched again; then DnCNN denoisers under noise of
--sigma: by the error of the image alone ("MSE"), and from there on by the stability of the classifier's prediction
("MSE + stability"), which needs its gradients; labels need neither. Certifies the classifier alone and behind each, as
smoothing.py does, into WORKDIR/denoised_SIGMA. The same command resumes.

Measured by this command with --num_samples=10000 --config.evaluation.num_examples=250 (seed 0, alpha 0.001, Wilson
95 % intervals over images, Student's for ACR; 2 CPU cores with much other work, 224 CPU s in all):

before the net  | certified at r=0  | r=0.25            | r=0.5             | r=0.75           | ACR
nothing         | 91.2 [87.0, 94.1] | 61.6 [55.4, 67.4] | 19.2 [14.8, 24.5] |  0.0 [0.0, 1.5]  | 0.314 [0.290, 0.338]
MSE             | 94.4 [90.8, 96.6] | 81.6 [76.3, 85.9] | 46.8 [40.7, 53.0] | 11.6 [8.2, 16.2] | 0.471 [0.442, 0.500]
MSE + stability | 96.4 [93.3, 98.1] | 87.2 [82.5, 90.8] | 55.2 [49.0, 61.2] | 13.2 [9.6, 18.0] | 0.510 [0.484, 0.537]
"""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from robustgen import log, loop, optim, parallel, preemption, smoothed, train, workdir, workflow
from robustgen.certify.smoothing import denoised
from robustgen.certify.smoothing import plan as plan_of
from robustgen.config import app
from robustgen.core import Array, Batch, LogitsFn, Net, TrainState
from robustgen.data import stream
from robustgen.data.source import Split, scaled, sealed
from robustgen.losses.denoising import DenoiserLoss, denoising, stability
from robustgen.models import init
from robustgen.models.dncnn import dncnn
from robustgen.recipe import Recipe
from robustgen.schedules import piecewise

_SIGMA = flags.DEFINE_float("sigma", 0.25, "Noise of the denoisers and of the certificate.", lower_bound=1e-6)
_SELECTION = flags.DEFINE_integer("num_selection", 100, "Samples that choose the class (n0).", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("num_samples", 100_000, "Samples that judge it (n).", lower_bound=1)
_ALPHA = flags.DEFINE_float("alpha", 0.001, "How often a certificate may be wrong.", 1e-12, 0.499)
_DEPTH = flags.DEFINE_integer("depth", 5, "Convolutions of the denoiser.", lower_bound=2)
_WIDTH = flags.DEFINE_integer("width", 16, "Channels of the denoiser.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("denoiser_epochs", 150, "Passes over the training split, for each objective.", 1)
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
RATES = (1e-3, 1e-4, 1e-5)  # by thirds of training, as in the official code

LossOf = Callable[[LogitsFn], DenoiserLoss]


def trained(start: Net, loss_of: LossOf, classifier: Net, recipe: Recipe, folder: pathlib.Path) -> Net:
    """`start`, trained by the loss that `loss_of(classifier)` is, or what `folder` holds of it."""
    data, batch_size = sealed(recipe.data), recipe.training.batch_size
    split, validation = jax.device_put(data.load("train")), Batch(*scaled(data.load("validation"), data.scale))
    num_steps = train.steps_in(_EPOCHS.value, num_examples=len(split.y), batch_size=batch_size)
    rate = piecewise(RATES, boundaries=(1 / 3, 2 / 3)).over(num_steps)

    def learner_of(classifier: Net) -> train.Learner:
        return train.Learner(
            start.apply_fn, lambda step: loss_of(classifier), optim.adam(learning_rate=rate), ema_decay=0.0
        )

    @functools.partial(jax.jit, static_argnames="length")
    def advance(state: TrainState, split: Split, classifier: Net, length: int) -> tuple[TrainState, dict[str, Array]]:
        return train.chunk(
            learner_of(classifier), stream(split, data.scale, batch_size=batch_size), state, length=length
        )

    @jax.jit
    def validate(state: TrainState, classifier: Net) -> Array:
        return loss_of(classifier)(train.final_net(state, start.apply_fn), validation, jax.random.key(recipe.seed))[0]

    state = loop.run(
        lambda state, length: advance(state, split, classifier, length),
        train.init(learner_of(classifier), start, jax.random.key(recipe.seed)),
        folder=folder, num_steps=num_steps, span=recipe.training.log_every,
        validate=lambda state: {"validation_loss": np.asarray(validate(state, classifier))},
        validate_every=num_steps, guard=train.stop_if_not_finite,
    )  # fmt: skip
    return train.final_net(jax.tree.map(jnp.asarray, state), start.apply_fn)


def denoisers(classifier: Net, recipe: Recipe, folder: pathlib.Path) -> dict[str, Net]:
    """Both denoisers, by name."""
    sigma, made = _SIGMA.value, f"{_DEPTH.value}x{_WIDTH.value}_{_EPOCHS.value}"
    fresh = init(dncnn(depth=_DEPTH.value, width=_WIDTH.value), recipe.data.shape, jax.random.key(recipe.seed))
    by_error = trained(fresh, lambda _: denoising(sigma=sigma), classifier, recipe, folder / f"mse_{made}")
    by_class = trained(
        by_error, lambda f: stability(f, sigma=sigma), classifier, recipe, folder / f"stability_{made}"
    )
    return {"MSE": by_error, "MSE + stability": by_class}


def main(run: app.Run) -> None:
    """Trains, certifies, and leaves all in WORKDIR/denoised_SIGMA."""
    log.hush(_QUIET.value)
    drawn = plan_of(sigma=_SIGMA.value, num_selection=_SELECTION.value, num_samples=_SAMPLES.value)
    with preemption.deferred_signals():
        folder = workdir.folder_of(run)
        plan = workdir.open_run(run, folder)
        classifier = workflow.train_one(plan, folder, backend=parallel.jit())
        out = folder / f"denoised_{_SIGMA.value:g}"
        found = denoisers(classifier, plan.recipe, out)
        with preemption.interruptible():
            nets = {"no denoiser": classifier} | {name: denoised(d, classifier) for name, d in found.items()}
            rows = [
                smoothed.certify_test_split(
                    net, plan.recipe, drawn, alpha=_ALPHA.value, name=name, folder=out / name.replace(" ", "_")
                )
                for name, net in nets.items()
            ]  # fmt: skip
            smoothed.publish(rows, RADII, out)


if __name__ == "__main__":
    app.run(main, expected=(*workdir.ERRORS, smoothed.JournalError, OSError))
