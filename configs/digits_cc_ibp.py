"""Certified training by CC-IBP on scikit-learn's digits: digits_mtl_ibp with another way between its ends.

    python experiments/train.py --config=configs/digits_cc_ibp.py --workdir=runs/digits_cc_ibp
    python experiments/evaluate.py --config=configs/digits_cc_ibp.py --workdir=runs/digits_cc_ibp

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_ibp, digits_mtl_ibp
from robustgen.losses import cc_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.loss = fdl.Config(cc_ibp, digits_ibp.rising(config), digits_mtl_ibp.attack(config), alpha=0.5)
    return config
