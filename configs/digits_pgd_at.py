"""PGD adversarial training on scikit-learn's digits.

    python experiments/train.py --config=configs/digits_pgd_at.py --workdir=runs/digits_pgd_at
    python experiments/evaluate.py --config=configs/digits_pgd_at.py --workdir=runs/digits_pgd_at

Measured: see README, "Digits".
"""

import fiddle as fdl

from configs import digits_standard
from robustgen.attacks import cross_entropy
from robustgen.losses import pgd_at


def get_config() -> fdl.Config:
    config = digits_standard.get_config()
    config.loss = fdl.Config(pgd_at, digits_standard.attack(config, objective=cross_entropy))
    return config
