"""Certified training by EXP-IBP on scikit-learn's digits: digits_mtl_ibp with another way between its ends.

    python experiments/train.py --config=configs/digits_exp_ibp.py --workdir=runs/digits_exp_ibp
    python experiments/evaluate.py --config=configs/digits_exp_ibp.py --workdir=runs/digits_exp_ibp

Measured by experiments/pareto.py, of which this is one setting: means of 3 seeds on 500 test images (2 CPU cores,
jax 0.12): clean 97.7 [95.9, 98.7] %, robust 83.3 [79.7, 86.3] % under PGD-50x3, certified 61.7 [57.4, 65.9] % by IBP.
The weight was fixed beforehand; rate, ramps and length are those of digits_ibp.
"""

import fiddle as fdl

from configs import digits_ibp, digits_mtl_ibp
from robustgen.losses import exp_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.loss = fdl.Config(exp_ibp, digits_ibp.rising(config), digits_mtl_ibp.attack(config), alpha=0.5)
    return config
