"""Standard training on CIFAR-10, PreAct ResNet-18; the other CIFAR-10 configs begin from this one.

    python experiments/train.py --config=configs/cifar10_standard.py --workdir=runs/cifar10_standard
    python experiments/evaluate.py --config=configs/cifar10_standard.py --workdir=runs/cifar10_standard

Needs CIFAR-10 prepared for TFDS: `robustgen prepare cifar10`, or --config.data.dir / TFDS_DATA_DIR where it lies.
Schedule and weight decay are those of Rice et al. 2020 (arXiv 2002.11569) cut to 110 epochs (Pang et al. 2021, arXiv
2010.00467). The full length has not been run yet.
"""

import fiddle as fdl

from robustgen.attacks import cross_entropy, pgd, scaled_pgd
from robustgen.attacks.starts import uniform
from robustgen.certify import ibp
from robustgen.core import Objective
from robustgen.data import compose, flip, pad_crop, tfds
from robustgen.losses import standard
from robustgen.models import preact_resnet18
from robustgen.optim import sgd
from robustgen.recipe import evaluation, recipe, training
from robustgen.schedules import piecewise
from robustgen.threats import linf

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # of the training images' channels


def get_config(*, eps: float = 8 / 255) -> fdl.Config:
    strong = fdl.Config(scaled_pgd, objective=cross_entropy, relative_step=0.1, num_steps=50, num_restarts=10)
    quick = fdl.Config(scaled_pgd, objective=cross_entropy, relative_step=0.25, num_steps=10, num_restarts=1)
    rate = fdl.Config(piecewise, (0.1, 0.01, 0.001), boundaries=(100 / 110, 105 / 110))
    return fdl.Config(
        recipe,
        data=fdl.Config(tfds, name="cifar10", num_validation=1000),
        model=fdl.Config(preact_resnet18, num_classes=10, mean=MEAN, std=STD),
        loss=fdl.Config(standard),
        optimizer=fdl.Config(sgd, learning_rate=rate, momentum=0.9, weight_decay=5e-4),
        training=fdl.Config(
            training,
            batch_size=128,
            num_epochs=110,
            augment=fdl.Config(compose, fdl.Config(pad_crop, pad=4), fdl.Config(flip)),
            validate_with=quick,
            validate_every=5.0,
            log_every=50,
        ),
        evaluation=fdl.Config(
            evaluation,
            threat=fdl.Config(linf, eps=eps),
            attacks={"PGD-50x10": strong},
            certifiers={"IBP": ibp},
            curve=(0.0, 2 / 255, 4 / 255, 6 / 255, 8 / 255, 12 / 255, 16 / 255, 32 / 255, 64 / 255),
            num_examples=1000,
            batch_size=250,
        ),
        seed=0,
    )


def attack(config: fdl.Config, *, objective: Objective, start: fdl.Config | object = uniform) -> fdl.Config:
    """The training attack: PGD-10 with steps of eps / 4, in the set that the evaluation measures."""
    threat = config.evaluation.threat
    return fdl.Config(pgd, threat, objective=objective, step_size=threat.eps / 4, num_steps=10, start=start)
