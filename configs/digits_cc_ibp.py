"""Certified training by CC-IBP on scikit-learn's digits: digits_mtl_ibp with another way between its ends.

    python experiments/train.py --config=configs/digits_cc_ibp.py --workdir=runs/digits_cc_ibp
    python experiments/evaluate.py --config=configs/digits_cc_ibp.py --workdir=runs/digits_cc_ibp

Measured by experiments/pareto.py, of which this is one setting: means of 3 seeds on 500 test images (2 CPU cores,
jax 0.12): clean 97.1 [95.3, 98.3] %, robust 82.5 [79.0, 85.6] % under PGD-50x3, certified 68.4 [64.2, 72.3] % by IBP.
The weight was fixed beforehand; rate, ramps and length are those of digits_ibp.
"""

import fiddle as fdl

from configs import digits_ibp, digits_mtl_ibp
from robustgen.losses import cc_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.loss = fdl.Config(cc_ibp, digits_ibp.rising(config), digits_mtl_ibp.attack(config), alpha=0.5)
    return config
