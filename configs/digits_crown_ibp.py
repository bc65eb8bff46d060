"""Certified training by CROWN-IBP on scikit-learn's digits: linear bounds while the radius rises, intervals after.

    python experiments/train.py --config=configs/digits_crown_ibp.py --workdir=runs/digits_crown_ibp
    python experiments/evaluate.py --config=configs/digits_crown_ibp.py --workdir=runs/digits_crown_ibp

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_ibp
from robustgen.losses import crown_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    kappa, beta = digits_ibp.ramped(1.0, 0.5), digits_ibp.ramped(1.0, 0.0)
    config.loss = fdl.Config(crown_ibp, digits_ibp.rising(config), kappa=kappa, beta=beta)
    return config
