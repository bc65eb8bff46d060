"""Certified training by SABR on scikit-learn's digits: bounds of a small box around an attack in the set.

    python experiments/train.py --config=configs/digits_sabr.py --workdir=runs/digits_sabr
    python experiments/evaluate.py --config=configs/digits_sabr.py --workdir=runs/digits_sabr

The attack is 4 steps of half the radius (Mueller et al. 2023: 8, the last ones ten and a hundred times smaller).
The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_ibp
from robustgen.attacks import cross_entropy, pgd
from robustgen.losses import sabr


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    threat = digits_ibp.rising(config)
    step_size = digits_ibp.ramped(0.0, config.evaluation.threat.eps / 2)
    attack = fdl.Config(pgd, threat, objective=cross_entropy, step_size=step_size, num_steps=4)
    config.loss = fdl.Config(sabr, threat, attack, tau=0.7, kappa=0.0)
    return config
