"""PGD adversarial training on CIFAR-10, PreAct ResNet-18, Linf 8/255, PGD-10 with steps of 2/255.

    python experiments/train.py --config=configs/cifar10_pgd_at.py --workdir=runs/cifar10_pgd_at
    python experiments/evaluate.py --config=configs/cifar10_pgd_at.py --workdir=runs/cifar10_pgd_at

The full length has not been run yet.
"""

import fiddle as fdl

from configs import cifar10_standard
from robustgen.attacks import cross_entropy
from robustgen.losses import pgd_at


def get_config(*, eps: float = 8 / 255) -> fdl.Config:
    config = cifar10_standard.get_config(eps=eps)
    config.loss = fdl.Config(pgd_at, cifar10_standard.attack(config, objective=cross_entropy))
    return config
