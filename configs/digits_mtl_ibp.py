"""Certified training by MTL-IBP on scikit-learn's digits: between one attack step and the bound.

    python experiments/train.py --config=configs/digits_mtl_ibp.py --workdir=runs/digits_mtl_ibp
    python experiments/evaluate.py --config=configs/digits_mtl_ibp.py --workdir=runs/digits_mtl_ibp

Measured by experiments/pareto.py, of which this is one setting: means of 3 seeds on 500 test images (2 CPU cores,
jax 0.12): clean 97.2 [95.4, 98.3] %, robust 82.7 [79.2, 85.8] % under PGD-50x3, certified 74.7 [70.7, 78.3] % by IBP.
The weight was fixed beforehand; rate, ramps and length are those of digits_ibp.
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
