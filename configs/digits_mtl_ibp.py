"""Certified training by MTL-IBP on scikit-learn's digits: between one attack step and the bound.

    python experiments/train.py --config=configs/digits_mtl_ibp.py --workdir=runs/digits_mtl_ibp
    python experiments/evaluate.py --config=configs/digits_mtl_ibp.py --workdir=runs/digits_mtl_ibp

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_ibp
from robustgen.attacks import cross_entropy, pgd
from robustgen.losses import mtl_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.loss = fdl.Config(mtl_ibp, digits_ibp.rising(config), attack(config), alpha=0.5)
    return config


def attack(config: fdl.Config) -> fdl.Config:
    """One step of ten times the radius, from anywhere in the set to one of its corners."""
    step_size = digits_ibp.ramped(0.0, 10 * config.evaluation.threat.eps)
    return fdl.Config(pgd, digits_ibp.rising(config), objective=cross_entropy, step_size=step_size, num_steps=1)
