"""PGD adversarial training on MNIST, Linf eps 0.3, conv16-conv32-fc100.

    python experiments/train.py --config=configs/mnist_pgd_at.py --workdir=runs/mnist_pgd_at
    python experiments/evaluate.py --config=configs/mnist_pgd_at.py --workdir=runs/mnist_pgd_at

The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_standard
from robustgen.attacks import cross_entropy
from robustgen.losses import pgd_at


def get_config(*, eps: float = 0.3) -> fdl.Config:
    config = mnist_standard.get_config(eps=eps)
    config.loss = fdl.Config(pgd_at, mnist_standard.attack(config, objective=cross_entropy))
    return config
