"""Certified training by interval bounds on scikit-learn's digits: eps and kappa ramp, so that training does not collapse.

    python experiments/train.py --config=configs/digits_ibp.py --workdir=runs/digits_ibp
    python experiments/evaluate.py --config=configs/digits_ibp.py --workdir=runs/digits_ibp

Measured: see README, "Digits".
"""

import fiddle as fdl

from configs import digits_standard
from robustgen.losses import ibp
from robustgen.schedules import ramp
from robustgen.threats import linf


def get_config() -> fdl.Config:
    config = digits_standard.get_config()
    eps = fdl.Config(ramp, 0.0, 0.1, begin=0.05, length=0.5)
    kappa = fdl.Config(ramp, 1.0, 0.5, begin=0.05, length=0.5)
    config.loss = fdl.Config(ibp, fdl.Config(linf, eps=eps), kappa=kappa)
    return config
