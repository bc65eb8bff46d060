"""Certified training by SABR on scikit-learn's digits: bounds of a small box around an attack in the set.

    python experiments/train.py --config=configs/digits_sabr.py --workdir=runs/digits_sabr
    python experiments/evaluate.py --config=configs/digits_sabr.py --workdir=runs/digits_sabr

The attack is 4 steps of half the radius (Mueller et al. 2023: 8, the last ones ten and a hundred times smaller).
Measured by experiments/pareto.py, of which this is one setting: means of 3 seeds on 500 test images (2 CPU cores,
jax 0.12): clean 97.0 [95.1, 98.2] %, robust 82.1 [78.5, 85.2] % under PGD-50x3, certified 72.6 [68.5, 76.3] % by IBP.
The weight was fixed beforehand; rate, ramps and length are those of digits_ibp.
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
