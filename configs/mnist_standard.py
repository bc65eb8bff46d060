"""Standard training on MNIST with Wong & Kolter's conv16-conv32-fc100; the other MNIST configs begin from this one.

    python experiments/train.py --config=configs/mnist_standard.py --workdir=runs/mnist_standard
    python experiments/evaluate.py --config=configs/mnist_standard.py --workdir=runs/mnist_standard

Needs MNIST prepared for TFDS: `robustgen prepare mnist`, or --config.data.dir / TFDS_DATA_DIR where it lies.
The full length has not been run yet.
"""

import fiddle as fdl

from robustgen.attacks import cross_entropy, pgd, scaled_pgd
from robustgen.attacks.starts import uniform
from robustgen.certify import ibp
from robustgen.core import Objective
from robustgen.data import none, tfds
from robustgen.losses import standard
from robustgen.models import wong_cnn
from robustgen.optim import adam
from robustgen.recipe import evaluation, recipe, training
from robustgen.schedules import one_cycle, ramp
from robustgen.threats import linf


def get_config(*, eps: float = 0.3) -> fdl.Config:
    strong = fdl.Config(scaled_pgd, objective=cross_entropy, relative_step=0.1, num_steps=50, num_restarts=10)
    quick = fdl.Config(scaled_pgd, objective=cross_entropy, relative_step=0.25, num_steps=10, num_restarts=1)
    return fdl.Config(
        recipe,
        data=fdl.Config(tfds, name="mnist", num_validation=1000),
        model=fdl.Config(wong_cnn, num_classes=10),
        loss=fdl.Config(standard),
        optimizer=fdl.Config(adam, learning_rate=fdl.Config(one_cycle, 3e-4, 3e-3, 3e-6, peak_at=0.4)),
        training=fdl.Config(
            training,
            batch_size=128,
            num_epochs=20,
            augment=fdl.Config(none),
            validate_with=quick,
            validate_every=1.0,
            log_every=50,
            ema_decay=0.995,
        ),
        evaluation=fdl.Config(
            evaluation,
            threat=fdl.Config(linf, eps=eps),
            attacks={"PGD-50x10": strong},
            certifiers={"IBP": ibp},
            curve=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
            num_examples=1000,
            batch_size=250,
        ),
        seed=0,
    )


def attack(config: fdl.Config, *, objective: Objective, start: fdl.Config | object = uniform) -> fdl.Config:
    """The training attack: PGD-10, its radius and step ramping up over the first 30 % of training."""
    eps = config.evaluation.threat.eps
    threat = fdl.Config(linf, eps=fdl.Config(ramp, 0.0, eps, begin=0.0, length=0.3))
    step_size = fdl.Config(ramp, 0.0, eps / 4, begin=0.0, length=0.3)
    return fdl.Config(pgd, threat, objective=objective, step_size=step_size, num_steps=10, start=start)
