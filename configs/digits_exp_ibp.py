"""Certified training by EXP-IBP on scikit-learn's digits: digits_mtl_ibp with another way between its ends.

    python experiments/train.py --config=configs/digits_exp_ibp.py --workdir=runs/digits_exp_ibp
    python experiments/evaluate.py --config=configs/digits_exp_ibp.py --workdir=runs/digits_exp_ibp

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_ibp, digits_mtl_ibp
from robustgen.losses import exp_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.loss = fdl.Config(exp_ibp, digits_ibp.rising(config), digits_mtl_ibp.attack(config), alpha=0.5)
    return config
